#include "broker/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "broker/limit_text.h"
#include "broker/settings.h"
#include "tests/fakes/temp_dir.h"

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

BrokerConfig config_of(std::string_view text) {
  FileAnswer answer = parse_config(text, "c.toml");
  if (answer) return *std::move(answer);
  ADD_FAILURE() << ::testing::PrintToString(answer.error());
  return {};
}

std::vector<std::string> errors_of(std::string_view text) {
  const FileAnswer answer = parse_config(text, "c.toml");
  return answer ? std::vector<std::string>{} : answer.error();
}

// One device of two lines, and a third.
std::vector<std::string> errors_with(std::string_view line) {
  return errors_of("[[device]]\nsocket_path = '/s'\nblk_file = '/d'\n" + std::string(line));
}

DeviceConfig device_with(std::string_view line) {
  const BrokerConfig config =
      config_of("[[device]]\nsocket_path = '/s'\nblk_file = '/d'\n" + std::string(line));
  return config.devices.empty() ? DeviceConfig() : config.devices.front();
}

TEST(ConfigFile, ReadsEveryKey) {
  const BrokerConfig config = config_of(R"(
    require_posture = "strict"
    log_level = "warn"
    stats_interval = 60

    [[device]]
    type = "blk"
    name = "vda"
    socket_path = "/run/vda.sock"
    client = true
    blk_file = "/img/vda.img"
    read_only = true
    direct = true
    discard = false
    write_zeroes = false
    block_size = 4096
    serial = "S1"
    num_queues = 4
    queue_size = 128
    engine = "fallback"
    poll_us = 20
    socket_mode = "0600"
    allow_uid = [0, 107]

    [[device]]
    fd = 7
    blk_file = "/img/vdb.img"
  )");
  EXPECT_EQ(config.posture, PostureDemand::kStrict);
  EXPECT_EQ(config.log_level, "warn");
  EXPECT_EQ(config.stats_interval_s, 60u);
  ASSERT_THAT(config.devices, SizeIs(2));
  const DeviceConfig& first = config.devices[0];
  EXPECT_EQ(first.name, "vda");
  EXPECT_EQ(first.socket_path, "/run/vda.sock");
  EXPECT_TRUE(first.client);
  EXPECT_TRUE(first.read_only);
  EXPECT_TRUE(first.direct);
  EXPECT_FALSE(first.discard);
  EXPECT_FALSE(first.write_zeroes);
  EXPECT_EQ(first.block_size, 4096u);
  EXPECT_EQ(first.serial, "S1");
  EXPECT_EQ(first.num_queues, 4u);
  EXPECT_EQ(first.queue_size, 128u);
  EXPECT_EQ(first.engine, EngineChoice::kFallback);
  EXPECT_EQ(first.poll_us, 20u);
  EXPECT_EQ(first.socket_mode, 0600u);
  EXPECT_THAT(first.allow_uids, ElementsAre(0u, 107u));
  EXPECT_EQ(config.devices[1].fd, 7);
  EXPECT_EQ(config.devices[1].name, "vdb");
}

TEST(ConfigFile, TakesTheBrokersKeysInATableToo) {
  EXPECT_EQ(
      config_of("[broker]\nlog_level = 'debug'\n[[device]]\nfd = 3\nblk_file = 'd'").log_level,
      "debug");
}

TEST(ConfigFile, TakesModesInOctalOnly) {
  EXPECT_EQ(device_with("socket_mode = 0o640").socket_mode, 0640u);
  EXPECT_EQ(device_with("socket_mode = '666'").socket_mode, 0666u);
  EXPECT_EQ(device_with("socket_mode = 0o0").socket_mode, 0u);
  EXPECT_THAT(errors_with("socket_mode = 660"),
              ElementsAre("c.toml:4:15: socket_mode must be octal: \"0660\" or 0o660"));
}

TEST(ConfigFile, TakesOneUserOrMany) {
  EXPECT_THAT(device_with("allow_uid = 5").allow_uids, ElementsAre(5u));
  EXPECT_THAT(device_with("allow_uid = '5,6'").allow_uids, ElementsAre(5u, 6u));
  EXPECT_THAT(errors_with("allow_uid = ['root']"), ElementsAre(HasSubstr("array of numbers")));
}

TEST(ConfigFile, TakesSwitchesAsWordsToo) {
  EXPECT_TRUE(device_with("direct = 'on'").direct);
  EXPECT_THAT(errors_with("direct = 1"), ElementsAre(HasSubstr("direct must be true or false")));
}

TEST(ConfigFile, RefusesASyntaxErrorWithItsPlace) {
  EXPECT_THAT(errors_of("[[device]]\nname = \n"), ElementsAre(StartsWith("c.toml:2:")));
}

TEST(ConfigFile, RefusesBracketsWithoutAName) {
  const auto expected = "c.toml:2:3: a name must follow '[', as in [[device]]";
  EXPECT_THAT(errors_of("\n[[,"), ElementsAre(expected));
  EXPECT_THAT(errors_of("\n[[\x06]]"), ElementsAre(expected));
  EXPECT_THAT(errors_of("\n[["), ElementsAre(expected));
  EXPECT_THAT(errors_of("\n[ # x"), ElementsAre(expected));
  EXPECT_THAT(errors_of("[[]]"), ElementsAre(StartsWith("c.toml:1:")));
}

TEST(ConfigFile, RefusesStrangeCharactersAfterABackslash) {
  const auto expected = StartsWith("c.toml:1:12: no such escape is known");
  EXPECT_THAT(errors_of("name = \"\"\"a\\\uFCFFb\"\"\""), ElementsAre(expected));
  EXPECT_THAT(errors_of("name = \"\"\"a\\\n  \uFCFFb\"\"\""), ElementsAre(expected));
  EXPECT_THAT(errors_of("name = \"\"\"a\\ \n\"\"\""), ElementsAre(expected));
}

TEST(ConfigFile, RefusesQuotesWithinAValue) {
  for (const std::string text :
       {"a=-n=\"\"\"::\u0413\"\"\"", "a = 1\"\u0413\"", "a = -[\"\u0413\"]", "a = .\"\u0413\"",
        "a = 1 \"\u0413\"", "a = [1{\"\u0413\"]"}) {
    EXPECT_THAT(errors_of(text), ElementsAre(HasSubstr("text in quotes must be all of a value")))
        << text;
  }
  // A key, a dotted one, a list and a table may be in quotes; that there are no such keys is
  // another matter.
  for (const std::string text :
       {"\"\u0413\" = 1", "a.\"\u0413\" = 1", "a = [ \"\u0413\", \"b\" ]", "a = [\n\"\u0413\"\n]",
        "a = { \"\u0413\" = \"\u0413\", c = \"d\" }", "[\"\u0413\"]\n", "[[ \"a\".'\u0413' ]]\n"}) {
    EXPECT_THAT(errors_of(text), Not(Contains(HasSubstr("text in quotes")))) << text;
  }
}

TEST(ConfigFile, RefusesStrangeCharactersOutsideQuotes) {
  const auto expected = "c.toml:1:8: only text in quotes may have this character";
  EXPECT_THAT(errors_of("name = \u00e9"), ElementsAre(expected));
  EXPECT_THAT(errors_of("name = \ufdff"), ElementsAre(expected));
  EXPECT_THAT(errors_of("name = \x01"), ElementsAre(expected));
  EXPECT_THAT(errors_of("'\u00e9' = \u201cx\u201d"), ElementsAre(StartsWith("c.toml:1:7: ")));
  EXPECT_THAT(errors_of("a = '''\n\u00e9'''\n[\n"), ElementsAre(StartsWith("c.toml:3:2: ")));
}

TEST(ConfigFile, TakesAnythingInQuotesAndComments) {
  EXPECT_EQ(device_with("serial = 'x' # \u00e9 [").serial, "x");
  EXPECT_EQ(device_with("socket_owner = \"\u00e9\\\"[\u00e9\"").socket_owner, "\u00e9\"[\u00e9");
  EXPECT_EQ(device_with("socket_owner = \"\"\"\n[,\"\"\"").socket_owner, "[,");
  EXPECT_EQ(device_with("socket_owner = '''\n[\\'''").socket_owner, "[\\");
  EXPECT_EQ(config_of("\ufeff[[device]]\nfd = 3\nblk_file = 'd'").devices.size(), 1u);
}

TEST(ConfigFile, RefusesAnUnknownKeyAndSuggests) {
  EXPECT_THAT(errors_with("queue_sise = 4"),
              ElementsAre(StartsWith(
                  "c.toml:4:1: there is no key 'queue_sise'; did you mean queue_size?")));
}

TEST(ConfigFile, RefusesADuplicateKey) {
  EXPECT_THAT(errors_with("blk_file = '/e'"), ElementsAre(StartsWith("c.toml:4:")));
  EXPECT_THAT(errors_with("blk-file = '/e'"), ElementsAre(HasSubstr("given more than once")));
  EXPECT_THAT(errors_with("read_only = true\nreadonly = true"),
              ElementsAre(HasSubstr("read_only is given more than once")));
}

TEST(ConfigFile, RefusesValuesOfTheWrongType) {
  EXPECT_THAT(
      errors_with("num_queues = '4'"),
      ElementsAre("c.toml:4:14: num_queues must be a number (without quotes), not a string"));
  EXPECT_THAT(errors_with("serial = 12"),
              ElementsAre("c.toml:4:10: serial must be a string (in quotes), not a number"));
  EXPECT_THAT(errors_with("poll_us = 1.5"), ElementsAre(HasSubstr("with a fraction")));
}

TEST(ConfigFile, RefusesValuesBeyondTheLimits) {
  EXPECT_THAT(errors_with("num_queues = 65"), ElementsAre(HasSubstr("from 1 to 64, not '65'")));
  EXPECT_THAT(errors_with("num_queues = -1"), ElementsAre(HasSubstr("from 1 to 64, not '-1'")));
}

TEST(ConfigFile, RefusesKeysInTheWrongPlace) {
  EXPECT_THAT(errors_with("log_level = 'info'"), ElementsAre(HasSubstr("for the whole broker")));
  EXPECT_THAT(errors_of("read_only = true\n[[device]]\nfd = 3\nblk_file = 'd'"),
              ElementsAre(HasSubstr("put it into a [[device]] table")));
}

TEST(ConfigFile, RefusesASettingAtTheTopAndInTheTable) {
  EXPECT_THAT(errors_of("log_level='info'\n[broker]\nlog_level='warn'\n"
                        "[[device]]\nfd = 3\nblk_file = 'd'"),
              ElementsAre(HasSubstr("log_level is given more than once")));
}

TEST(ConfigFile, RefusesADeviceInSingleBrackets) {
  EXPECT_THAT(errors_of("[device]\nfd = 3"), ElementsAre(HasSubstr("write [[device]]")));
  EXPECT_THAT(errors_of("device = [1]"), ElementsAre(HasSubstr("must be a [[device]] table")));
  EXPECT_THAT(errors_of("broker = 1"), ::testing::Contains(HasSubstr("[broker]")));
}

TEST(ConfigFile, RefusesAFileWithoutDevices) {
  EXPECT_THAT(errors_of(""), ElementsAre(HasSubstr("add a [[device]] table")));
}

TEST(ConfigFile, RefusesAnUnknownType) {
  EXPECT_THAT(errors_with("type = 'floppy'"), ElementsAre(HasSubstr("type must be \"blk\"")));
}

TEST(ConfigFile, RefusesAnIncompleteDeviceWithItsPlace) {
  EXPECT_THAT(errors_of("\n[[device]]\nname = 'x'\n"),
              ElementsAre(AllOf(StartsWith("c.toml:2:1: "), HasSubstr("blk_file")),
                          AllOf(StartsWith("c.toml:2:1: "), HasSubstr("socket_path"))));
}

TEST(ConfigFile, ReportsEveryMistakeInTheOrderOfTheFile) {
  const std::vector<std::string> errors = errors_of(
      "[[device]]\nzzz = 1\nblk_file = 3\naaa = 2\n[[device]]\nnum_queues = 0\n[broker]\nx = 1\n");
  EXPECT_THAT(errors, ElementsAre(StartsWith("c.toml:2:1: "), StartsWith("c.toml:3:12: "),
                                  StartsWith("c.toml:4:1: "), StartsWith("c.toml:6:14: "),
                                  StartsWith("c.toml:8:1: ")));
}

TEST(ConfigFile, ReportsAtMostAScreenOfMistakes) {
  std::string text;
  for (int i = 0; i < 200; ++i) text.append("k").append(std::to_string(i)).append(" = 1\n");
  const std::vector<std::string> errors = errors_of(text);
  ASSERT_THAT(errors, SizeIs(51));
  EXPECT_EQ(errors.back(), "c.toml: and 150 more");
}

TEST(ConfigFile, EscapesWhatTheFileContains) {
  EXPECT_THAT(errors_with("\"a\\u001b\" = 1"), ElementsAre(HasSubstr("'a\\x1b'")));
}

// --- what two devices must not share ---

std::vector<std::string> errors_of_two(std::string_view first, std::string_view second) {
  return errors_of("[[device]]\n" + std::string(first) + "\n[[device]]\n" + std::string(second));
}

TEST(ConfigFile, RefusesTwoDevicesOnOneSocket) {
  EXPECT_THAT(errors_of_two("socket_path='/run/s'\nblk_file='/a'",
                            "socket_path='/run/x/../s'\nblk_file='/b'"),
              ElementsAre(AllOf(StartsWith("c.toml:5:13: "), HasSubstr("socket_path '/run/s'"))));
}

TEST(ConfigFile, RefusesTwoDevicesOnOneFd) {
  EXPECT_THAT(errors_of_two("fd=3\nblk_file='/a'", "fd=3\nblk_file='/b'"),
              ElementsAre(HasSubstr("fd '3'")));
}

TEST(ConfigFile, RefusesTwoDevicesWithOneImage) {
  EXPECT_THAT(errors_of_two("fd=3\nname='a'\nblk_file='/a'\nread_only=true",
                            "fd=4\nname='b'\nblk_file='/./a'"),
              ElementsAre(HasSubstr("blk_file '/a'")));
}

TEST(ConfigFile, LetsReadersShareAnImage) {
  EXPECT_THAT(errors_of_two("fd=3\nname='a'\nblk_file='/a'\nread_only=true",
                            "fd=4\nname='b'\nblk_file='/a'\nread_only=true"),
              ElementsAre());
}

TEST(ConfigFile, RefusesTwoDevicesWithOneNameEvenWhereItWasNotChosen) {
  EXPECT_THAT(errors_of_two("fd=3\nblk_file='/a/disk.img'", "fd=4\nblk_file='/b/disk.img'"),
              ElementsAre(AllOf(HasSubstr("name 'disk'"), HasSubstr("name = "))));
}

TEST(ConfigFile, LimitsTheNumberOfDevices) {
  std::string text;
  for (std::size_t i = 0; i <= kDevicesMax; ++i) {
    const std::string n = std::to_string(i);
    text += "[[device]]\nsocket_path='/s" + n + "'\nblk_file='/d" + n + "'\n";
  }
  EXPECT_THAT(errors_of(text), ElementsAre(HasSubstr("at most 16384 devices")));
}

TEST(ConfigFile, SaysWhereTheOtherDeviceIs) {
  EXPECT_THAT(errors_of_two("socket_path='/a'\ntype='net'\ntap_name='t'",
                            "socket_path='/b'\ntype='net'\nname='x'\ntap_name='t'"),
              ElementsAre("c.toml:9:10: two devices have the tap_name 't' (the first is 't' at "
                          "c.toml:1); give each its own"));
}

TEST(ConfigFile, RefusesTwoDevicesWithOneUid) {
  EXPECT_THAT(errors_of_two("fd=3\nblk_file='/a'\nuid=7", "fd=4\nblk_file='/b'\nuid=7"),
              ElementsAre(HasSubstr("uid '7'")));
}

// --- whose a device is ---

TEST(ConfigFile, ReadsWhoseADeviceIs) {
  const DeviceConfig device = device_with(
      "tenant='blue'\nvm_name='web 1'\nvm_uuid='6A2F41A3-C54C-FCE8-32D2-0324E1C32E22'\nuid=4000");
  EXPECT_EQ(device.tenant, "blue");
  EXPECT_EQ(device.vm_name, "web 1");
  EXPECT_EQ(device.vm_uuid, "6a2f41a3-c54c-fce8-32d2-0324e1c32e22");
  EXPECT_EQ(device.uid, 4000u);
}

TEST(ConfigFile, RefusesAUuidThatIsNone) {
  EXPECT_THAT(errors_with("vm_uuid='6a2f41a3-c54c-fce8-32d2_0324e1c32e22'"),
              ElementsAre(AllOf(HasSubstr("vm_uuid must be a UUID"), HasSubstr("c.toml:4:9"))));
}

TEST(ConfigFile, RefusesATenantWithSpaces) {
  EXPECT_THAT(errors_with("tenant='a b'"), ElementsAre(HasSubstr("tenant must be 1 to 64")));
}

TEST(ConfigFile, RefusesControlCharactersInAVmName) {
  EXPECT_THAT(errors_with("vm_name=\"a\\nb\""), ElementsAre(HasSubstr("vm_name must be")));
}

TEST(ConfigFile, RefusesRootsUid) {
  EXPECT_THAT(errors_with("uid=0"), ElementsAre(HasSubstr("uid must be a number from 1 to")));
}

// --- no device, and several files ---

TEST(ConfigFile, NeedsNoDeviceWhereTheyCanBeAdded) {
  EXPECT_THAT(config_of("control_socket='/run/c'").devices, SizeIs(0));
  EXPECT_THAT(errors_of("control_socket='off'"), ElementsAre(HasSubstr("lists no device")));
}

// A file and its drop-in directory.
class DropIns : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(dir_.file("c.d"));
    std::ofstream(dir_.file(name)) << text;
  }
  static std::string device(const std::string& name) {
    return "[[device]]\nname='" + name + "'\nsocket_path='/" + name + ".sock'\nblk_file='/" + name +
           "'\n";
  }
  FileAnswer read() { return read_config_file(dir_.file("c.toml")); }
  fakes::TempDir dir_ = fakes::TempDir::for_sockets();
};

TEST_F(DropIns, ComeAfterTheFileInTheOrderOfTheirNames) {
  write("c.toml", device("m"));
  write("c.d/20.toml", device("b"));
  write("c.d/10.toml", device("a") + "[broker]\nlog_level='warn'\n");
  write("c.d/30.toml~", "not = [TOML");
  const FileAnswer answer = read();
  ASSERT_TRUE(answer) << testing::PrintToString(answer.error());
  EXPECT_EQ(answer->log_level, "warn");
  ASSERT_THAT(answer->devices, SizeIs(3));
  EXPECT_EQ(answer->devices[0].name, "m");
  EXPECT_EQ(answer->devices[1].name, "a");
  EXPECT_EQ(answer->devices[2].name, "b");
}

TEST_F(DropIns, AreNamedWhereTheyAreWrong) {
  write("c.toml", device("m"));
  write("c.d/10.toml", device("a") + "nonsense=1\n");
  const FileAnswer answer = read();
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error(), ElementsAre(AllOf(StartsWith(dir_.file("c.d/10.toml") + ":5:1: "),
                                                HasSubstr("there is no key 'nonsense'"))));
}

TEST_F(DropIns, MayNotRepeatADeviceOfTheFile) {
  write("c.toml", device("m"));
  write("c.d/10.toml", device("m"));
  const FileAnswer answer = read();
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error(),
              ElementsAre(HasSubstr("name 'm' (the first is 'm' at " + dir_.file("c.toml") + ":1)"),
                          HasSubstr("socket_path"), HasSubstr("blk_file")));
}

TEST_F(DropIns, MayNotRepeatAKeyOfTheBroker) {
  write("c.toml", "log_level='info'\n" + device("m"));
  write("c.d/10.toml", "log_level='warn'\n");
  const FileAnswer answer = read();
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error(), ElementsAre(HasSubstr("log_level is given more than once")));
}

TEST_F(DropIns, MayNotBeWritableByEverybody) {
  write("c.toml", device("m"));
  write("c.d/10.toml", device("a"));
  std::filesystem::permissions(dir_.file("c.d/10.toml"), std::filesystem::perms(0666));
  const FileAnswer answer = read();
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error(), ElementsAre(AllOf(HasSubstr("10.toml"), HasSubstr("chmod o-w"))));
}

// --- limits --------------------------------------------------------------------------------------

constexpr std::string_view kGroup =
    "[[group]]\nname = 'web'\ntenant = 'blue'\nlimits = { iops = 9 }\n";
constexpr std::string_view kMember =
    "[[device]]\nsocket_path = '/s'\nblk_file = '/d'\nlimit_group = 'web'\n";

TEST(ConfigFile, ReadsLimitsAsATableAndAsText) {
  const auto config = parse_config(
      "[[device]]\nsocket_path = '/s'\nblk_file = '/d'\n[device.limits]\niops = 1000\n"
      "write_bps = '50M'\nburst = '200ms'\n"
      "[[device]]\nsocket_path = '/t'\nblk_file = '/e'\nlimit = 'iops=5'\n",
      "c.toml");
  ASSERT_TRUE(config) << config.error().front();
  EXPECT_EQ(limits_text(config->devices[0].limits, common::DeviceKind::kBlk),
            "iops=1000,iops-burst=200,write-bps=50000000,write-bps-burst=10000000");
  EXPECT_EQ(limits_text(config->devices[1].limits, common::DeviceKind::kBlk), "iops=5");
}

TEST(ConfigFile, RefusesLimitsThatAreWrong) {
  EXPECT_THAT(errors_with("limits = { iops = 0 }"), ElementsAre(HasSubstr("must not be 0")));
  EXPECT_THAT(errors_with("limits = { iopz = 1 }"), ElementsAre(HasSubstr("'iopz' is no limit")));
  EXPECT_THAT(errors_with("limits = { iops = 1.5 }"), ElementsAre(HasSubstr("must be a number")));
  EXPECT_THAT(errors_with("limits = 5"), ElementsAre(HasSubstr("must be a table")));
}

TEST(ConfigFile, ReadsGroupsBeforeOrAfterTheirDevices) {
  const std::string member = std::string(kMember) + "tenant = 'blue'\n";
  for (const std::string& text : {std::string(kGroup) + member, member + std::string(kGroup)}) {
    const auto config = parse_config(text, "c.toml");
    ASSERT_TRUE(config) << config.error().front();
    EXPECT_EQ(config->groups.front().limits.rates[0].per_second, 9U);
    EXPECT_EQ(config->devices.front().limit_group, "web");
  }
}

TEST(ConfigFile, RefusesADeviceThatCannotBeInItsGroup) {
  const auto errors = [](const std::string& text) {
    const auto config = parse_config(text, "c.toml");
    return config ? std::vector<std::string>{} : config.error();
  };
  EXPECT_THAT(errors(std::string(kMember)),
              ElementsAre(StartsWith("c.toml:4:15: limit_group 'web' is not there")));
  EXPECT_THAT(errors(std::string(kMember) + "tenant = 'red'\n" + std::string(kGroup)),
              ElementsAre(HasSubstr("must be of one tenant")));
}

TEST(ConfigFile, RefusesGroupsThatAreWrong) {
  const auto errors = [](const std::string& text) {
    const auto config = parse_config("control_socket = '/c'\n" + text, "c.toml");
    return config ? std::vector<std::string>{} : config.error();
  };
  EXPECT_THAT(errors(std::string(kGroup) + std::string(kGroup)),
              ElementsAre(HasSubstr("two groups have the name 'web'")));
  EXPECT_THAT(errors("[group]\nname = 'a'\n"), ElementsAre(HasSubstr("two brackets")));
  EXPECT_THAT(errors("[[group]]\ntenant = 'a'\n"), ElementsAre(HasSubstr("has no name")));
  EXPECT_THAT(errors("[[group]]\nname = 'a b'\n"), ElementsAre(HasSubstr("characters")));
  EXPECT_THAT(errors("[[group]]\nname = 'a'\nlimit = 'packets=1'\n"),
              ElementsAre(HasSubstr("there are iops")));
  EXPECT_THAT(errors("[[group]]\nname = 'a'\ncolour = 'red'\n"),
              ElementsAre(HasSubstr("is no key of a group")));
}

}  // namespace
}  // namespace broker
