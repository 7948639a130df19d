// tests/unit/broker/net_options_test.cpp: the options and keys of network cards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/config_file.h"
#include "broker/options.h"
#include "broker/settings.h"

namespace broker {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Parsed = common::Result<Command, UsageError>;

Parsed parse(std::vector<std::string> words, const std::string& called_as = "bulkhead") {
  words.insert(words.begin(), called_as);
  return parse_command(words, 0);
}

Parsed parse_net(std::vector<std::string> words) {
  words.insert(words.begin(), {"net", "--socket-path=/run/s"});
  return parse(std::move(words));
}

DeviceConfig device_of(const Parsed& parsed) {
  if (!parsed) {
    ADD_FAILURE() << parsed.error().text;
    return {};
  }
  return std::get<RunServe>(*parsed).config.devices.at(0);
}

std::string error_of(const Parsed& parsed) { return parsed ? "(no error)" : parsed.error().text; }

TEST(NetOptions, ATapAndASocketAreEnough) {
  const DeviceConfig device = device_of(parse_net({"--tap-name=tap0"}));
  EXPECT_EQ(device.kind, common::DeviceKind::kNet);
  EXPECT_EQ(device.tap_name, "tap0");
  EXPECT_EQ(device.name, "tap0");
  EXPECT_FALSE(device.tap_create);
  EXPECT_FALSE(device.mac.has_value());
  EXPECT_FALSE(device.mtu.has_value());
  EXPECT_TRUE(device.offload_csum);
  EXPECT_TRUE(device.offload_tso);
  EXPECT_TRUE(device.offload_uso);
  EXPECT_TRUE(device.mrg_rxbuf);
}

TEST(NetOptions, TakesEveryOption) {
  const DeviceConfig device = device_of(
      parse_net({"--tap_name=tap0", "--tap-create", "--mac=52:54:00:aB:cd:01", "--mtu=9000",
                 "--offload-csum=on", "--offload-tso=off", "--offload-uso=off", "--mrg-rxbuf=off",
                 "--num-queues=4", "--queue-size=256", "--engine=fallback", "--poll-us=20",
                 "--name=eth0", "--allow-uid=107"}));
  EXPECT_TRUE(device.tap_create);
  EXPECT_EQ(device.mac, (MacAddress{0x52, 0x54, 0, 0xab, 0xcd, 1}));
  EXPECT_EQ(device.mtu, 9000u);
  EXPECT_TRUE(device.offload_csum);
  EXPECT_FALSE(device.offload_tso);
  EXPECT_FALSE(device.offload_uso);
  EXPECT_FALSE(device.mrg_rxbuf);
  EXPECT_EQ(device.num_queues, 4u);
  EXPECT_EQ(device.queue_size, 256u);
  EXPECT_EQ(device.poll_us, 20u);
  EXPECT_EQ(device.name, "eth0");
}

TEST(NetOptions, TakesDescriptorsWithCommas) {
  const DeviceConfig device = device_of(parse_net({"--tap-fd=3,5,4"}));
  EXPECT_THAT(device.tap_fds, ElementsAre(3, 5, 4));
  EXPECT_EQ(device.name, "net-fd3");
}

TEST(NetOptions, AMacvtapNamesTheDevice) {
  const DeviceConfig device = device_of(parse_net({"--macvtap=macvtap7"}));
  EXPECT_EQ(device.macvtap, "macvtap7");
  EXPECT_EQ(device.name, "macvtap7");
}

TEST(NetOptions, CalledAsVhostUserNetItIsANetworkCard) {
  EXPECT_EQ(device_of(parse({"--socket-path=/s", "--tap-name=t"}, "/usr/bin/vhost-user-net")).kind,
            common::DeviceKind::kNet);
}

TEST(NetOptions, PrintsItsCapabilitiesWhateverElseIsGiven) {
  const Parsed parsed = parse({"--bogus", "--print-capabilities"}, "vhost-user-net");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(std::get<PrintAndExit>(*parsed).text, "{\"type\":\"net\"}\n");
}

TEST(NetOptions, WantsOneConnectionExactly) {
  EXPECT_THAT(error_of(parse_net({})), HasSubstr("connected to nothing; give one of --tap-name"));
  EXPECT_THAT(error_of(parse_net({"--tap-name=a", "--macvtap=b"})),
              HasSubstr("exclude each other"));
  EXPECT_THAT(error_of(parse_net({"--tap-fd=3", "--tap-name=a"})), HasSubstr("exclude each other"));
}

TEST(NetOptions, RefusesAnotherNumberOfPairsThanDescriptors) {
  EXPECT_THAT(error_of(parse_net({"--tap-fd=3,4", "--num-queues=3"})),
              HasSubstr("--num-queues is 3, and --tap-fd names 2 queues"));
  EXPECT_EQ(device_of(parse_net({"--tap-fd=3,4", "--num-queues=2"})).num_queues, 2u);
}

TEST(NetOptions, RefusesDescriptorsThatCannotBe) {
  EXPECT_THAT(error_of(parse_net({"--tap-fd=1"})), HasSubstr("where messages are written"));
  EXPECT_THAT(error_of(parse_net({"--tap-fd=3,3"})), HasSubstr("descriptor 3 twice"));
  EXPECT_THAT(error_of(parse_net({"--tap-fd=3,"})), HasSubstr("--tap-fd must be"));
  EXPECT_THAT(error_of(parse_net({"--tap-fd=x"})), HasSubstr("--tap-fd must be"));
  EXPECT_THAT(error_of(parse({"net", "--fd=3", "--tap-fd=3"})), HasSubstr("the same descriptor"));
}

TEST(NetOptions, RefusesAddressesThatAreNoCards) {
  for (const char* mac : {"52:54:00:12:34", "52:54:00:12:34:5g", "52-54-00-12-34-56",
                          "52:54:00:12:34:567", "+2:54:00:12:34:56"}) {
    EXPECT_THAT(error_of(parse_net({"--tap-name=t", "--mac=" + std::string(mac)})),
                HasSubstr("--mac must be six pairs"));
  }
  EXPECT_THAT(error_of(parse_net({"--tap-name=t", "--mac=01:00:5e:00:00:01"})),
              HasSubstr("its first byte even"));
  EXPECT_THAT(error_of(parse_net({"--tap-name=t", "--mac=00:00:00:00:00:00"})),
              HasSubstr("not all zeros"));
}

TEST(NetOptions, RefusesNamesThatNoInterfaceHas) {
  for (const char* name : {"sixteen-letters-", "a/b", "a b", "tap%d", "..", "a:1"}) {
    EXPECT_THAT(error_of(parse_net({"--tap-name=" + std::string(name)})),
                HasSubstr("--tap-name must be the name of an interface"));
  }
  EXPECT_EQ(device_of(parse_net({"--tap-name=fifteen-letters"})).tap_name, "fifteen-letters");
}

TEST(NetOptions, RefusesAnMtuThatVirtioHasNot) {
  EXPECT_THAT(error_of(parse_net({"--tap-name=t", "--mtu=67"})), HasSubstr("from 68 to 65535"));
  EXPECT_THAT(error_of(parse_net({"--tap-name=t", "--mtu=65536"})), HasSubstr("from 68 to 65535"));
  EXPECT_EQ(device_of(parse_net({"--tap-name=t", "--mtu=68"})).mtu, 68u);
}

TEST(NetOptions, RefusesToCreateWhatHasNoName) {
  EXPECT_THAT(error_of(parse_net({"--tap-fd=3", "--tap-create"})),
              HasSubstr("--tap-create needs --tap-name"));
}

TEST(NetOptions, SaysWhoseOptionItIs) {
  EXPECT_THAT(error_of(parse_net({"--blk-file=/d"})),
              HasSubstr("there is no option '--blk-file'; that is an option of 'bulkhead blk'"));
  EXPECT_THAT(error_of(parse({"blk", "--tap-name=t"})),
              HasSubstr("that is an option of 'bulkhead net'"));
  EXPECT_THAT(error_of(parse_net({"--tap-nam=t"})), HasSubstr("did you mean --tap-name?"));
}

// --- the configuration file ---

std::vector<std::string> errors_of(std::string_view text) {
  const FileAnswer answer = parse_config(text, "c.toml");
  return answer ? std::vector<std::string>{} : answer.error();
}

TEST(NetConfigFile, ReadsEveryKey) {
  const FileAnswer answer = parse_config(R"(
    [[device]]
    tap_name = "tap0"
    type = "net"
    name = "eth0"
    socket_path = "/run/eth0.sock"
    tap_create = true
    mac = "52:54:00:00:00:01"
    mtu = 1400
    offload_csum = false
    offload_tso = false
    offload_uso = "off"
    mrg_rxbuf = false
    num_queues = 2
    [[device]]
    type = "net"
    socket_path = "/run/eth1.sock"
    tap_fd = [7, 8]
    [[device]]
    type = "net"
    socket_path = "/run/eth2.sock"
    tap_fd = 9
    [[device]]
    type = "net"
    socket_path = "/run/eth3.sock"
    macvtap = "mv0"
  )",
                                         "c.toml");
  ASSERT_TRUE(answer) << ::testing::PrintToString(answer.error());
  const auto& devices = answer->devices;
  ASSERT_EQ(devices.size(), 4u);
  EXPECT_EQ(devices[0].kind, common::DeviceKind::kNet);
  EXPECT_EQ(devices[0].tap_name, "tap0");
  EXPECT_TRUE(devices[0].tap_create);
  EXPECT_EQ(devices[0].mac, (MacAddress{0x52, 0x54, 0, 0, 0, 1}));
  EXPECT_EQ(devices[0].mtu, 1400u);
  EXPECT_FALSE(devices[0].offload_csum);
  EXPECT_FALSE(devices[0].mrg_rxbuf);
  EXPECT_THAT(devices[1].tap_fds, ElementsAre(7, 8));
  EXPECT_THAT(devices[2].tap_fds, ElementsAre(9));
  EXPECT_EQ(devices[3].macvtap, "mv0");
}

TEST(NetConfigFile, DisksAndCardsLiveSideBySide) {
  const FileAnswer answer = parse_config(
      "[[device]]\nsocket_path='/a'\nblk_file='/d'\n"
      "[[device]]\ntype='net'\nsocket_path='/b'\ntap_name='tap0'\n",
      "c.toml");
  ASSERT_TRUE(answer) << ::testing::PrintToString(answer.error());
  EXPECT_EQ(answer->devices[0].kind, common::DeviceKind::kBlk);
  EXPECT_EQ(answer->devices[1].kind, common::DeviceKind::kNet);
}

TEST(NetConfigFile, SaysWhichTypeAKeyIsFor) {
  EXPECT_THAT(
      errors_of("[[device]]\ntype='net'\nsocket_path='/b'\ntap_name='t'\nblk_file='/d'\n"),
      ElementsAre(AllOf(HasSubstr("c.toml:5:1"), HasSubstr("blk_file is for type = \"blk\""))));
  EXPECT_THAT(errors_of("[[device]]\nsocket_path='/b'\ntap_name='t'\n"),
              ElementsAre(HasSubstr("tap_name is for type = \"net\"")));
}

TEST(NetConfigFile, RefusesOneTapForTwoCards) {
  const std::string card = "[[device]]\ntype='net'\ntap_name='t'\n";
  EXPECT_THAT(
      errors_of(card + "name='a'\nsocket_path='/a'\n" + card + "name='b'\nsocket_path='/b'\n"),
      ElementsAre(HasSubstr("two devices have the tap_name 't'")));
  const std::string inherited = "[[device]]\ntype='net'\ntap_fd=[3,4]\n";
  EXPECT_THAT(errors_of(inherited + "name='a'\nsocket_path='/a'\n" + inherited +
                        "name='b'\nsocket_path='/b'\n"),
              ElementsAre(HasSubstr("tap_fd '3'"), HasSubstr("tap_fd '4'")));
}

}  // namespace
}  // namespace broker
