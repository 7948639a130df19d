// tests/integration/operator_apply_test.cpp: a configuration that changes under a running broker:
// `bulkhead check`, `bulkhead apply` and SIGHUP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class OperatorApply : public OperatedTest {
 protected:
  void serve_two() { serve({{.name = "vda"}, {.name = "vdb"}}); }
  [[nodiscard]] std::string config() const { return host_.file("bulkhead.toml"); }
  [[nodiscard]] std::string table(const std::string& name, const std::string& more = "") const {
    if (!std::filesystem::exists(host_.image(name))) make_image(host_.image(name), 4 << 20);
    return "[[device]]\nname = \"" + name + "\"\nsocket_path = \"" + host_.socket(name) +
           "\"\nblk_file = \"" + host_.image(name) + "\"\nengine = \"fallback\"\n" + more;
  }
  void write_config(const std::string& text) const { std::ofstream(config()) << text; }
  // On another image than its own.
  [[nodiscard]] std::string on_image(const std::string& name, const std::string& image) const {
    std::string text = table(name);
    const std::string own = host_.image(name);
    return text.replace(text.find(own), own.size(), image);
  }
  [[nodiscard]] std::string swapped() const {
    return on_image("vda", host_.image("vdb")) + on_image("vdb", host_.image("vda"));
  }
  [[nodiscard]] static std::string group(const std::string& name) {
    return "[[group]]\nname = \"" + name + "\"\nlimits = { iops = 5000 }\n";
  }
  // As serve_two() has it.
  [[nodiscard]] std::string two() const { return table("vda") + table("vdb"); }

  [[nodiscard]] Ran apply(std::vector<std::string> options = {}) const {
    options.insert(options.begin(), {"apply", "--config=" + config()});
    return ask(options);
  }
  [[nodiscard]] Ran check() const { return ask({"check", "--config=" + config()}); }
};

TEST_F(OperatorApply, DoesNothingWhereNothingDiffers) {
  serve_two();
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.text, HasSubstr("nothing differs"));
}

TEST_F(OperatorApply, TouchesOnlyWhatHasChanged) {
  serve({{.name = "vda"}, {.name = "vdb"}, {.name = "vdc"}});
  const auto untouched = host_.connect({}, "vda");
  const auto in_place = host_.connect({}, "vdb");
  const auto sessions = host_.sessions();
  const auto workers = host_.workers();
  // vdb only gets another tenant, vdc goes, vdd comes.
  write_config(table("vda") + table("vdb", "tenant = \"blue\"\n") + table("vdd"));
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  EXPECT_THAT(ran.text, AllOf(HasSubstr("vdb: change: done"), HasSubstr("vdc: remove: done"),
                              HasSubstr("vdd: add: done"), Not(HasSubstr("vda"))));
  EXPECT_EQ(host_.sessions(), sessions);
  EXPECT_EQ(host_.workers(), workers);
  expect_serves(untouched->queue());
  expect_serves(in_place->queue());
  expect_serves(host_.connect({}, "vdd")->queue());
  EXPECT_THAT(ask({"list", "vdb", "--json"}).text, HasSubstr(R"("tenant":"blue")"));
  EXPECT_THAT(ask({"list"}).text, Not(HasSubstr("vdc")));
}

TEST_F(OperatorApply, CutsAVmmOffOnlyByForce) {
  serve_two();
  auto vda = host_.connect();
  write_config(table("vda", "read_only = true\n") + table("vdb"));
  EXPECT_THAT(apply({"--dry-run"}).text, HasSubstr("vda: replace (a VMM uses it"));
  const Ran refused = apply();
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.text, HasSubstr("is in use by pid " + std::to_string(::getpid())));
  expect_serves(vda->queue());
  EXPECT_EQ(apply({"--force"}).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("read_only":true)"));
}

TEST_F(OperatorApply, DryRunChangesNothing) {
  serve_two();
  write_config(table("vda") + table("vdc"));
  EXPECT_THAT(apply({"--dry-run"}).text, AllOf(HasSubstr("vdb: remove"), HasSubstr("vdc: add")));
  EXPECT_THAT(ask({"list"}).text, AllOf(HasSubstr("vdb"), Not(HasSubstr("vdc"))));
}

TEST_F(OperatorApply, SwapsTheImagesOfTwoDevices) {
  serve_two();
  write_config(swapped());
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  EXPECT_THAT(ran.text, AllOf(HasSubstr("vda: replace: done"), HasSubstr("vdb: replace: done")));
  EXPECT_THAT(ask({"list", "vda"}).text, HasSubstr("vdb.img"));
  EXPECT_THAT(ask({"list", "vdb"}).text, HasSubstr("vda.img"));
  expect_serves(host_.connect({}, "vda")->queue());
  expect_serves(host_.connect({}, "vdb")->queue());
}

TEST_F(OperatorApply, SwapsNothingWhereAVmmUsesOneOfThem) {
  serve_two();
  const auto vdb = host_.connect({}, "vdb");
  write_config(swapped());
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("'vda', 'vdb' can only be replaced together"));
  EXPECT_THAT(ask({"list", "vda"}).text, HasSubstr("vda.img"));
  expect_serves(vdb->queue());
  host_.broker().signal(SIGHUP);
  EXPECT_NE(host_.broker().wait_for_line({"vda", "reload: make way: not done", "a VMM uses one"}),
            "");
  EXPECT_EQ(apply({"--force"}).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda"}).text, HasSubstr("vdb.img"));
}

TEST_F(OperatorApply, HangUpSignalSwapsTheImagesOfTwoDevices) {
  serve_two();
  write_config(swapped());
  host_.broker().signal(SIGHUP);
  ASSERT_NE(host_.broker().wait_for_line({"reload: done"}), "");
  EXPECT_THAT(ask({"list", "vda"}).text, HasSubstr("vdb.img"));
  expect_serves(host_.connect({}, "vda")->queue());
}

TEST_F(OperatorApply, GoesBackToTheOldImageWhereTheSwapFails) {
  serve_two();
  write_config(on_image("vda", host_.image("vdb")) + on_image("vdb", host_.file("no-such.img")));
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, AllOf(HasSubstr("vda: replace: done"), HasSubstr("does not exist"),
                              HasSubstr("cannot be served as before any more")));
  write_config(on_image("vda", host_.file("no-such.img")) + on_image("vdb", host_.image("vdb")));
  EXPECT_EQ(apply().exit_code, 1);
  EXPECT_THAT(ask({"list", "vda"}).text, HasSubstr("vdb.img"));
}

TEST_F(OperatorApply, RemovesGroupsThatAreNotListedAnyMore) {
  serve_two();
  write_config(group("web") + group("idle") + table("vda", "limit_group = \"web\"\n") +
               table("vdb"));
  ASSERT_EQ(apply().exit_code, 0);
  ASSERT_THAT(ask({"limit"}).text, AllOf(HasSubstr("web"), HasSubstr("idle")));
  write_config(two());
  EXPECT_THAT(apply({"--dry-run"}).text,
              AllOf(HasSubstr("group web: remove"), HasSubstr("vda: replace")));
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  EXPECT_THAT(ran.text,
              AllOf(HasSubstr("group idle: remove: done"), HasSubstr("group web: remove: done")));
  EXPECT_THAT(ask({"limit"}).text, Not(HasSubstr("web")));
  EXPECT_THAT(apply().text, HasSubstr("nothing differs"));
}

TEST_F(OperatorApply, LeavesAGroupToADeviceThatWasAddedAtRunTime) {
  serve_two();
  write_config(group("web") + two());
  ASSERT_EQ(apply().exit_code, 0);
  make_image(host_.image("x"), 4 << 20);
  ASSERT_EQ(ask({"add", "blk", "--name=x", "--socket-path=" + host_.socket("x"),
                 "--blk-file=" + host_.image("x"), "--limit-group=web"})
                .exit_code,
            0);
  write_config(two());
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("group 'web' has 1 devices"));
  EXPECT_THAT(ask({"limit"}).text, HasSubstr("web"));
}

TEST_F(OperatorApply, LeavesWhatWasAddedAtRunTime) {
  serve_two();
  make_image(host_.image("x"), 4 << 20);
  ASSERT_EQ(ask({"add", "blk", "--name=x", "--socket-path=" + host_.socket("x"),
                 "--blk-file=" + host_.image("x")})
                .exit_code,
            0);
  EXPECT_THAT(apply().text, HasSubstr("nothing differs"));
  EXPECT_THAT(ask({"list"}).text, HasSubstr("x.img"));
}

TEST_F(OperatorApply, BrokenFileChangesNothingAndSaysWhere) {
  serve_two();
  write_config(two() + "num_queue = 4\n");
  const Ran ran = apply();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("bulkhead.toml:11:1: there is no key 'num_queue'; did you mean "
                                  "num_queues?"));
}

TEST_F(OperatorApply, HangUpSignalReadsTheFileAgain) {
  serve_two();
  const auto vda = host_.connect();
  const auto workers = host_.workers();
  write_config(table("vda") + table("vdc"));
  host_.broker().signal(SIGHUP);
  ASSERT_NE(host_.broker().wait_for_line({"reload: done"}), "");
  EXPECT_EQ(host_.workers(), workers);
  expect_serves(vda->queue());
  expect_serves(host_.connect({}, "vdc")->queue());
  EXPECT_THAT(ask({"list"}).text, Not(HasSubstr("vdb")));
}

TEST_F(OperatorApply, HangUpSignalCutsNobodyOff) {
  serve_two();
  const auto vda = host_.connect();
  write_config(table("vdb"));
  host_.broker().signal(SIGHUP);
  EXPECT_NE(host_.broker().wait_for_line({"vda", "reload: remove: not done", "is in use by pid"}),
            "");
  EXPECT_NE(host_.broker().wait_for_line({"but for 1 devices"}), "");
  expect_serves(vda->queue());
}

TEST_F(OperatorApply, HangUpSignalWithABrokenFileChangesNothing) {
  serve_two();
  write_config("[[device]\n");
  host_.broker().signal(SIGHUP);
  EXPECT_NE(host_.broker().wait_for_line({"the configuration is not reloaded"}), "");
  EXPECT_THAT(ask({"status", "--json"}).text, HasSubstr(R"("devices":2)"));
}

TEST_F(OperatorApply, HangUpSignalEndsABrokerWithoutAFile) {
  host_.serve();
  host_.broker().signal(SIGHUP);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
}

// --- check ---------------------------------------------------------------------------------------

TEST_F(OperatorApply, CheckTellsThePostureOfEachDevice) {
  write_config(two());
  const Ran ran = check();
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  EXPECT_THAT(ran.text, AllOf(HasSubstr("vda: would be served"), HasSubstr("layers enforced"),
                              HasSubstr("2 of 2 devices would be served")));
  EXPECT_THAT(ran.text, HasSubstr("cgroup limits where the broker is given a tree of cgroups"));
  EXPECT_FALSE(std::filesystem::exists(host_.socket("vda")));
}

TEST_F(OperatorApply, CheckTellsThePostureThatABrokerGives) {
  serve_two();
  const std::string line = host_.broker().wait_for_line({"vda: serving", "posture: "});
  EXPECT_THAT(check().text, HasSubstr(line.substr(line.find("posture: "))));
}

TEST_F(OperatorApply, CheckTellsWhatWouldBeRefused) {
  write_config(table("vda") +
               "[[device]]\nname = \"gone\"\nsocket_path = \"/no-such-dir/s\"\n"
               "blk_file = \"" +
               host_.file("gone") + "\"\n" + "[[device]]\ntype = \"net\"\nsocket_path = \"" +
               host_.socket("eth0") + "\"\ntap_name = \"no-such-tap\"\n");
  const Ran ran = check();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text,
              AllOf(HasSubstr("gone: would be refused: disk"), HasSubstr("does not exist"),
                    HasSubstr("its directory does not exist"),
                    HasSubstr("there is no interface 'no-such-tap'"),
                    HasSubstr("1 of 3 devices would be served")));
}

TEST_F(OperatorApply, CheckKnowsTheBrokerThatServesTheDevicesAlready) {
  serve_two();
  EXPECT_EQ(check().exit_code, 0);
  EXPECT_EQ(ask({"remove", "vda"}).exit_code, 0);
  EXPECT_EQ(check().exit_code, 0);
}

TEST_F(OperatorApply, CheckSeesAnotherProcessesLock) {
  host_.serve();
  write_config("[[device]]\nname = \"other\"\nsocket_path = \"" + host_.socket("other") +
               "\"\nblk_file = \"" + host_.image() + "\"\n");
  const Ran ran = check();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("holds a lock on it"));
}

TEST_F(OperatorApply, CheckPrintsEveryMistakeOfAFile) {
  write_config("log_level = \"loud\"\n" + two() + table("vda"));
  const Ran ran = check();
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, AllOf(HasSubstr("bulkhead.toml:1:13: log_level must be"),
                              HasSubstr("bulkhead.toml:13:8: two devices have the name 'vda'"),
                              HasSubstr("two devices have the socket_path"),
                              HasSubstr("two devices have the blk_file")));
}

// --- many ----------------------------------------------------------------------------------------

#ifndef BULKHEAD_SANITIZER  // Whose run-time makes it many times as long.

// Each has a socket and an image open, which is more than the 1,024 descriptors that a process
// usually begins with.
TEST_F(OperatorApply, ThousandDevicesOfOneFileAreServed) {
  std::string text;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "d" + std::to_string(i);
    make_image(host_.image(name), 64 << 10);
    text += table(name);
  }
  write_config(text);
  host_.run({"serve", "--config=" + config(), "--control-socket=" + control(), "--log-level=warn"});
  host_.broker().wait_ready();
  EXPECT_THAT(ask({"status", "--json"}).text, HasSubstr(R"("devices":1000,)"));
  expect_serves(host_.connect({}, "d999")->queue());
  const Ran ran = apply();
  EXPECT_THAT(ran.text, HasSubstr("nothing differs"));
}

#endif

}  // namespace
}  // namespace integration
