#include "broker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/settings.h"
#include "tests/unit/broker/scratch.h"

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using Parsed = common::Result<Command, UsageError>;

Parsed parse(std::vector<std::string> words, int listen_fds = 0) {
  words.insert(words.begin(), "/usr/bin/bulkhead");
  return parse_command(words, listen_fds);
}

Parsed parse_blk(std::vector<std::string> words) {
  words.insert(words.begin(), {"blk", "--socket-path=/run/s", "--blk-file=/img/vda.img"});
  return parse(std::move(words));
}

DeviceConfig device_of(const Parsed& parsed) {
  if (!parsed) {
    ADD_FAILURE() << parsed.error().text;
    return {};
  }
  return std::get<RunServe>(*parsed).config.devices.at(0);
}

std::string printed(const Parsed& parsed) {
  if (!parsed) return "error: " + parsed.error().text;
  return std::get<PrintAndExit>(*parsed).text;
}

std::string error_of(const Parsed& parsed) {
  if (parsed) return "(no error)";
  EXPECT_EQ(parsed.error().exit_code, 2);
  return parsed.error().text;
}

// --- the forms of the command line ---

TEST(Options, ADiskAndASocketAreEnough) {
  const DeviceConfig device = device_of(parse_blk({}));
  EXPECT_EQ(device.socket_path, "/run/s");
  EXPECT_EQ(device.blk_file, "/img/vda.img");
  EXPECT_EQ(device.name, "vda");
  EXPECT_EQ(device.fd, -1);
  EXPECT_FALSE(device.read_only);
  EXPECT_FALSE(device.direct);
  EXPECT_TRUE(device.discard);
  EXPECT_TRUE(device.write_zeroes);
  EXPECT_TRUE(device.lock);
  EXPECT_EQ(device.block_size, 512u);
  EXPECT_EQ(device.socket_mode, 0660u);
  EXPECT_FALSE(device.num_queues.has_value());
}

TEST(Options, TakesEveryOption) {
  const DeviceConfig device = device_of(
      parse_blk({"--read-only", "--num-queues=4", "--queue-size=256", "--direct=on",
                 "--engine=io_uring", "--block-size=4096", "--serial=abc 123", "--discard=off",
                 "--write-zeroes=off", "--lock=off", "--poll-us=50", "--socket-mode=0600",
                 "--socket-owner=root", "--socket-group=kvm", "--allow-uid=0,1000", "--name=sys"}));
  EXPECT_TRUE(device.read_only);
  EXPECT_EQ(device.num_queues, 4u);
  EXPECT_EQ(device.queue_size, 256u);
  EXPECT_TRUE(device.direct);
  EXPECT_EQ(device.engine, EngineChoice::kIoUring);
  EXPECT_EQ(device.block_size, 4096u);
  EXPECT_EQ(device.serial, "abc 123");
  EXPECT_FALSE(device.discard);
  EXPECT_FALSE(device.write_zeroes);
  EXPECT_FALSE(device.lock);
  EXPECT_EQ(device.poll_us, 50u);
  EXPECT_EQ(device.socket_mode, 0600u);
  EXPECT_EQ(device.socket_owner, "root");
  EXPECT_EQ(device.socket_group, "kvm");
  EXPECT_EQ(device.allow_uids, (std::vector<uid_t>{0, 1000}));
  EXPECT_EQ(device.name, "sys");
}

TEST(Options, TakesTheBrokersOptions) {
  const Parsed parsed =
      parse_blk({"--require-posture=strict", "--log-level=debug", "--stats-interval=10",
                 "--uid-range=300000-300999", "--forensic=on", "--cgroup=/sys/fs/cgroup/ours",
                 "--core-scheduling=required"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  const BrokerConfig& config = std::get<RunServe>(*parsed).config;
  EXPECT_EQ(config.posture, PostureDemand::kStrict);
  EXPECT_EQ(config.log_level, "debug");
  EXPECT_EQ(config.stats_interval_s, 10u);
  EXPECT_TRUE(config.forensic);
  EXPECT_EQ(config.uids, (UidSpan{300'000, 300'999}));
  EXPECT_EQ(config.cgroup, "/sys/fs/cgroup/ours");
  EXPECT_EQ(config.core_scheduling, common::CoreScheduling::kRequired);
}

TEST(Options, TakesValuesAsTheNextWord) {
  const DeviceConfig device =
      device_of(parse({"blk", "--fd", "5", "--blk-file", "d.img", "--direct", "on"}));
  EXPECT_EQ(device.fd, 5);
  EXPECT_EQ(device.blk_file, "d.img");
  EXPECT_TRUE(device.direct);
}

TEST(Options, TakesUnderscoresForDashesInNamesOnly) {
  const DeviceConfig device =
      device_of(parse({"blk", "--socket_path=/run/a_b", "--blk_file", "c_d.img", "--read_only"}));
  EXPECT_EQ(device.socket_path, "/run/a_b");
  EXPECT_EQ(device.blk_file, "c_d.img");
  EXPECT_TRUE(device.read_only);
}

TEST(Options, TakesAllWaysToSayYesAndNo) {
  EXPECT_TRUE(device_of(parse_blk({"--direct=true"})).direct);
  EXPECT_TRUE(device_of(parse_blk({"--direct=yes"})).direct);
  EXPECT_TRUE(device_of(parse_blk({"--direct=1"})).direct);
  EXPECT_FALSE(device_of(parse_blk({"--discard=false"})).discard);
  EXPECT_FALSE(device_of(parse_blk({"--discard=no"})).discard);
  EXPECT_FALSE(device_of(parse_blk({"--discard=0"})).discard);
}

TEST(Options, TakesTheOtherSpellingsOfReadOnly) {
  EXPECT_TRUE(device_of(parse_blk({"--readonly"})).read_only);
  EXPECT_TRUE(device_of(parse_blk({"--ro"})).read_only);
  EXPECT_TRUE(device_of(parse_blk({"--read-only=on"})).read_only);
  EXPECT_FALSE(device_of(parse_blk({"--read-only=off"})).read_only);
}

TEST(Options, AFlagDoesNotTakeTheNextWord) {
  EXPECT_TRUE(device_of(parse_blk({"--read-only", "--direct=off"})).read_only);
  EXPECT_THAT(error_of(parse_blk({"--read-only", "off"})), HasSubstr("'off'"));
}

TEST(Options, TakesASocketOfTheServiceManagerWhereNoneIsGiven) {
  EXPECT_EQ(device_of(parse({"blk", "--blk-file=d"}, 1)).fd, 3);
  EXPECT_EQ(device_of(parse({"blk", "--blk-file=d", "--socket-path=/s"}, 1)).fd, -1);
  EXPECT_THAT(error_of(parse({"blk", "--blk-file=d"}, 2)), HasSubstr("no socket"));
}

// --- names ---

TEST(Options, NamesADeviceAfterItsImage) {
  const auto name = [](const std::string& file) {
    return device_of(parse({"blk", "--fd=3", "--blk-file=" + file})).name;
  };
  EXPECT_EQ(name("/dev/vg0/root"), "root");
  EXPECT_EQ(name("my disk (1).raw.img"), "my-disk--1-.raw");
  EXPECT_EQ(name("/images/.img"), "img");
  EXPECT_EQ(name("/images/..."), "disk");
  EXPECT_EQ(name("/images/\n\n"), "disk");
  EXPECT_EQ(name(std::string(100, 'x')), std::string(64, 'x'));
}

// --- printing and exiting ---

TEST(Options, PrintsCapabilitiesAndIgnoresEverythingElse) {
  const std::string expected = "{\"type\":\"block\",\"features\":[\"read-only\",\"blk-file\"]}\n";
  EXPECT_EQ(printed(parse({"blk", "--print-capabilities"})), expected);
  EXPECT_EQ(printed(parse({"blk", "--print_capabilities"})), expected);
  EXPECT_EQ(printed(parse({"blk", "--nonsense", "x", "--help", "--print-capabilities"})), expected);
}

TEST(Options, CalledAsVhostUserBlkIsBlk) {
  const std::vector<std::string> capabilities = {"/usr/libexec/vhost-user-blk",
                                                 "--print-capabilities"};
  EXPECT_THAT(printed(parse_command(capabilities)), HasSubstr("\"type\":\"block\""));
  const std::vector<std::string> words = {"vhost-user-blk", "--fd=3", "--blk-file=d.img"};
  EXPECT_EQ(device_of(parse_command(words)).fd, 3);
}

TEST(Options, PrintsVersionAndHelp) {
  EXPECT_EQ(printed(parse({"--version"})), "bulkhead " BULKHEAD_VERSION "\n");
  EXPECT_EQ(printed(parse({"blk", "--version"})), "bulkhead " BULKHEAD_VERSION "\n");
  EXPECT_EQ(printed(parse({"serve", "-V"})), "bulkhead " BULKHEAD_VERSION "\n");
  EXPECT_THAT(printed(parse({"--help"})), HasSubstr("bulkhead serve --config=FILE"));
  EXPECT_THAT(printed(parse({"serve", "--help"})), HasSubstr("[[device]]"));
  EXPECT_THAT(printed(parse({"posture", "--help"})), HasSubstr("--pid=N"));
}

TEST(Options, HelpListsEverySetting) {
  for (const auto kind : {common::DeviceKind::kBlk, common::DeviceKind::kNet}) {
    const std::string help = printed(parse({std::string(kind_name(kind)), "--help"}));
    for (const Setting& setting : all_settings()) {
      const std::string line = "  --" + std::string(setting.name);
      EXPECT_EQ(help.find(line) != std::string::npos, setting.is_for(kind)) << line;
    }
  }
}

TEST(Options, PosturePrintsThePermissionsThatAreBuiltIn) {
  const std::string text = printed(parse({"posture", "--permissions"}));
  EXPECT_THAT(text, HasSubstr("worker-blk (io_uring): 2 system calls"));
  EXPECT_THAT(text, HasSubstr("must never: "));
}

TEST(Options, PostureTakesAPid) {
  const Parsed parsed = parse({"posture", "--pid=42"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  EXPECT_EQ(std::get<RunPosture>(*parsed).pid, 42);
  EXPECT_THAT(error_of(parse({"posture", "--pid=0"})), HasSubstr("'0'"));
  EXPECT_THAT(error_of(parse({"posture", "--pid=12x"})), HasSubstr("'12x'"));
}

control::RunOperator operator_of(const Parsed& parsed) {
  const auto* run = parsed ? std::get_if<control::RunOperator>(&*parsed) : nullptr;
  if (run != nullptr) return *run;
  ADD_FAILURE() << error_of(parsed);
  return {};
}

TEST(Options, PostureAsksTheBrokerWhereNoPidIsGiven) {
  const control::RunOperator run = operator_of(parse({"posture", "vda", "--json"}));
  EXPECT_EQ(run.command, "posture");
  EXPECT_THAT(run.names, ElementsAre("vda"));
  EXPECT_TRUE(run.json);
}

TEST(Options, OperatorsCommandsTakeNamesAndOptionsInAnyOrder) {
  const control::RunOperator run =
      operator_of(parse({"remove", "vda", "--control-socket", "/run/c", "vdb", "--force"}));
  EXPECT_THAT(run.names, ElementsAre("vda", "vdb"));
  EXPECT_EQ(run.socket, "/run/c");
  EXPECT_TRUE(run.force);
}

TEST(Options, AddTakesTheOptionsOfItsType) {
  const control::RunOperator run =
      operator_of(parse({"add", "net", "--socket-path=/s", "--tap-name=tap0", "--mtu", "9000",
                         "--replace", "--json"}));
  EXPECT_EQ(run.device.kind, common::DeviceKind::kNet);
  EXPECT_EQ(run.device.mtu, 9000u);
  EXPECT_EQ(run.device.name, "tap0");
  EXPECT_TRUE(run.replace);
  EXPECT_TRUE(run.json);
}

TEST(Options, AddSaysWhatIsWrong) {
  EXPECT_THAT(error_of(parse({"add", "--blk-file=/d"})), HasSubstr("add needs a type first"));
  EXPECT_THAT(error_of(parse({"add", "blk", "--blk-file=/d"})), HasSubstr("has no socket"));
  EXPECT_THAT(error_of(parse({"add", "blk", "--mtu=9000"})),
              HasSubstr("that is an option of 'bulkhead net'"));
  EXPECT_THAT(error_of(parse({"add", "blk", "--log-level=info"})), HasSubstr("there is no option"));
}

TEST(Options, OperatorsCommandsSayWhatIsWrong) {
  EXPECT_THAT(error_of(parse({"remove"})), HasSubstr("needs the name of a device"));
  EXPECT_THAT(error_of(parse({"status", "vda"})), HasSubstr("do not know what to do with 'vda'"));
  EXPECT_THAT(error_of(parse({"list", "a b"})), HasSubstr("name of a device must be 1 to 64"));
  EXPECT_THAT(error_of(parse({"list", "--forse"})), HasSubstr("there is no option '--forse'"));
  EXPECT_THAT(error_of(parse({"remov", "vda"})), HasSubstr("did you mean remove?"));
  EXPECT_THAT(error_of(parse({"list", "--control-socket="})), HasSubstr("needs a value"));
}

TEST(Options, OperatorsWaitTenSecondsOrAsLongAsTheySay) {
  EXPECT_EQ(operator_of(parse({"status"})).patience(), std::chrono::seconds(10));
  EXPECT_EQ(operator_of(parse({"top", "--timeout-s=60"})).patience(), std::chrono::seconds(60));
  EXPECT_EQ(operator_of(parse({"posture", "--timeout-s=1"})).patience(), std::chrono::seconds(1));
  EXPECT_THAT(error_of(parse({"status", "--timeout-s=0"})), HasSubstr("from 1 to 3600"));
}

// --- mistakes ---

TEST(Options, AnErrorIsOneLineThatNamesTheProgram) {
  EXPECT_EQ(error_of(parse_blk({"--queue-size=7"})),
            "bulkhead: --queue-size must be a power of two from 2 to 1024, not '7'\n");
}

TEST(Options, SuggestsTheNearestOption) {
  EXPECT_THAT(error_of(parse_blk({"--sokcet-mode=0600"})),
              HasSubstr("no option '--sokcet-mode'; did you mean --socket-mode?"));
  EXPECT_THAT(error_of(parse_blk({"--queues=4"})), HasSubstr("no option '--queues'"));
  EXPECT_THAT(error_of(parse({"blkk"})), HasSubstr("did you mean blk?"));
  EXPECT_THAT(error_of(parse({"--verison"})), HasSubstr("did you mean --version?"));
}

TEST(Options, SaysWhatToDoWhereNothingIsAsked) {
  EXPECT_THAT(error_of(parse({})), HasSubstr("--help"));
  EXPECT_THAT(error_of(parse_command({})), HasSubstr("--help"));
}

TEST(Options, RefusesWordsThatBelongToNoOption) {
  EXPECT_THAT(error_of(parse_blk({"disk.img"})), HasSubstr("'disk.img'"));
}

TEST(Options, RefusesAMissingValue) {
  EXPECT_THAT(error_of(parse_blk({"--serial"})), HasSubstr("--serial needs a value"));
  EXPECT_THAT(error_of(parse_blk({"--direct", "--read-only"})),
              HasSubstr("--direct needs a value"));
  EXPECT_THAT(error_of(parse_blk({"--serial=", "--read-only"})),
              HasSubstr("--serial needs a value"));
  EXPECT_EQ(device_of(parse_blk({"--serial", "x=", "--read-only"})).serial, "x=");
  EXPECT_EQ(device_of(parse_blk({"--serial", "-x-"})).serial, "-x-");
}

TEST(Options, RefusesAnOptionGivenTwice) {
  EXPECT_THAT(error_of(parse_blk({"--name=a", "--name=b"})), HasSubstr("--name is given more"));
}

TEST(Options, RefusesASocketPathTogetherWithAnFd) {
  EXPECT_THAT(error_of(parse_blk({"--fd=3"})), HasSubstr("exclude each other"));
}

TEST(Options, RefusesADeviceWithoutSocketOrDisk) {
  EXPECT_THAT(error_of(parse({"blk", "--blk-file=d"})), HasSubstr("--socket-path"));
  EXPECT_THAT(error_of(parse({"blk", "--fd=3"})), HasSubstr("--blk-file"));
}

TEST(Options, RefusesAClientWithoutASocketPath) {
  EXPECT_THAT(error_of(parse({"blk", "--fd=3", "--client", "--blk-file=d"})),
              HasSubstr("--client needs --socket-path"));
}

TEST(Options, RefusesAnOwnerForASocketThatOthersMake) {
  EXPECT_THAT(error_of(parse_blk({"--client", "--socket-group=kvm"})), HasSubstr("leave them out"));
}

TEST(Options, ReportsEveryWrongValue) {
  const std::string text = error_of(parse_blk({"--queue-size=3", "--block-size=1024"}));
  EXPECT_THAT(text, HasSubstr("--queue-size must be"));
  EXPECT_THAT(text, HasSubstr("--block-size must be"));
}

// --- limits: the last that is allowed and the first that is not ---

TEST(Options, LimitsQueues) {
  EXPECT_EQ(device_of(parse_blk({"--num-queues=64"})).num_queues, 64u);
  EXPECT_THAT(error_of(parse_blk({"--num-queues=65"})), HasSubstr("from 1 to 64"));
  EXPECT_THAT(error_of(parse_blk({"--num-queues=0"})), HasSubstr("from 1 to 64"));
  EXPECT_THAT(error_of(parse_blk({"--num-queues=-1"})), HasSubstr("from 1 to 64"));
  EXPECT_THAT(error_of(parse_blk({"--num-queues=4x"})), HasSubstr("from 1 to 64"));
  EXPECT_THAT(error_of(parse_blk({"--num-queues=4294967297"})), HasSubstr("from 1 to 64"));
}

TEST(Options, LimitsQueueSizes) {
  EXPECT_EQ(device_of(parse_blk({"--queue-size=2"})).queue_size, 2u);
  EXPECT_EQ(device_of(parse_blk({"--queue-size=1024"})).queue_size, 1024u);
  EXPECT_THAT(error_of(parse_blk({"--queue-size=1"})), HasSubstr("power of two"));
  EXPECT_THAT(error_of(parse_blk({"--queue-size=2048"})), HasSubstr("power of two"));
  EXPECT_THAT(error_of(parse_blk({"--queue-size=100"})), HasSubstr("power of two"));
}

TEST(Options, LimitsSocketPaths) {
  const auto with_path = [](std::size_t bytes) {
    return parse({"blk", "--blk-file=d", "--socket-path=" + std::string(bytes, 's')});
  };
  EXPECT_EQ(device_of(with_path(107)).socket_path.size(), 107u);
  EXPECT_THAT(error_of(with_path(108)), HasSubstr("at most 107 bytes"));
}

TEST(Options, LimitsSerials) {
  EXPECT_EQ(device_of(parse_blk({"--serial=12345678901234567890"})).serial.size(), 20u);
  EXPECT_THAT(error_of(parse_blk({"--serial=123456789012345678901"})), HasSubstr("20 printable"));
  EXPECT_THAT(error_of(parse_blk({"--serial=a\nb"})), HasSubstr("'a\\x0ab'"));
}

TEST(Options, LimitsTheRest) {
  EXPECT_EQ(device_of(parse_blk({"--poll-us=1000000"})).poll_us, 1'000'000u);
  EXPECT_FALSE(device_of(parse_blk({})).restart_after_violation);
  EXPECT_TRUE(device_of(parse_blk({"--on-worker-violation=restart"})).restart_after_violation);
  EXPECT_THAT(error_of(parse_blk({"--on-worker-violation=maybe"})), HasSubstr("stop or restart"));
  EXPECT_THAT(error_of(parse_blk({"--poll-us=1000001"})), HasSubstr("--poll-us"));
  EXPECT_THAT(error_of(parse_blk({"--block-size=1024"})), HasSubstr("512 or 4096"));
  EXPECT_THAT(error_of(parse_blk({"--engine=threads"})), HasSubstr("auto, io_uring or fallback"));
  EXPECT_THAT(error_of(parse_blk({"--direct=maybe"})), HasSubstr("on or off"));
  EXPECT_THAT(error_of(parse_blk({"--socket-mode=1000"})), HasSubstr("octal"));
  EXPECT_THAT(error_of(parse_blk({"--socket-mode=0888"})), HasSubstr("octal"));
  EXPECT_THAT(error_of(parse_blk({"--allow-uid=0,,1"})), HasSubstr("numeric"));
  EXPECT_THAT(error_of(parse_blk({"--allow-uid=4294967295"})), HasSubstr("numeric"));
  EXPECT_THAT(error_of(parse_blk({"--name=a/b"})), HasSubstr("--name"));
  EXPECT_THAT(error_of(parse_blk({"--log-level=loud"})), HasSubstr("trace, debug"));
  EXPECT_THAT(error_of(parse_blk({"--require-posture=maybe"})), HasSubstr("strict or any"));
  EXPECT_THAT(error_of(parse_blk({"--memory-max=64"})), HasSubstr("a number with M or G"));
  EXPECT_THAT(error_of(parse_blk({"--memory-max=0M"})), HasSubstr("a number with M or G"));
  EXPECT_THAT(error_of(parse_blk({"--memory-max=16385G"})), HasSubstr("a number with M or G"));
  EXPECT_THAT(error_of(parse_blk({"--cpu-max=100001"})), HasSubstr("--cpu-max"));
  EXPECT_THAT(error_of(parse_blk({"--pids-max=3"})), HasSubstr("--pids-max"));
  EXPECT_THAT(error_of(parse_blk({"--cgroup=on"})), HasSubstr("auto, off, or the path"));
  EXPECT_THAT(error_of(parse_blk({"--uid-range=0-9"})), HasSubstr("two user ids above 0"));
  EXPECT_THAT(error_of(parse_blk({"--uid-range=20-10"})), HasSubstr("two user ids above 0"));
  EXPECT_THAT(error_of(parse_blk({"--uid-range=20"})), HasSubstr("two user ids above 0"));
  EXPECT_THAT(error_of(parse_blk({"--uid-range=1-4294967295"})), HasSubstr("two user ids"));
  EXPECT_THAT(error_of(parse({"blk", "--fd=2", "--blk-file=d"})), HasSubstr("messages"));
}

// --- serve ---

TEST(Options, ServeReadsItsFileAndOptionsOverrideIt) {
  const Scratch dir;
  const std::string path = dir.write("c.toml", R"(log_level = "error"
    [[device]]
    socket_path = "/s"
    blk_file = "/d.img"
  )");
  const Parsed parsed = parse({"serve", "--config=" + path, "--log-level=debug"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  const BrokerConfig& config = std::get<RunServe>(*parsed).config;
  EXPECT_EQ(config.log_level, "debug");
  EXPECT_EQ(config.devices.at(0).blk_file, "/d.img");
}

TEST(Options, ServeNeedsAFileThatCanBeRead) {
  EXPECT_THAT(error_of(parse({"serve"})), HasSubstr("--config=FILE"));
  EXPECT_THAT(error_of(parse({"serve", "--config=/nonexistent/x.toml"})),
              HasSubstr("No such file or directory"));
  EXPECT_THAT(error_of(parse({"serve", "--config=/"})), HasSubstr("Is a directory"));
}

TEST(Options, ServeRefusesOptionsOfOneDevice) {
  EXPECT_THAT(error_of(parse({"serve", "--config=/x", "--blk-file=/d"})),
              HasSubstr("no option '--blk-file'"));
}

TEST(Options, ServeReportsEveryMistakeOfTheFileOnItsLine) {
  const Scratch dir;
  const std::string path = dir.write("c.toml", "a = 1\nb = 2\n");
  const std::string text = error_of(parse({"serve", "--config=" + path}));
  EXPECT_THAT(text, HasSubstr("bulkhead: " + path + ":1:1: "));
  EXPECT_THAT(text, HasSubstr("bulkhead: " + path + ":2:1: "));
}

}  // namespace
}  // namespace broker
