#include "broker/audit/trail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "broker/audit/device_trail.h"
#include "broker/audit/verify.h"
#include "tests/unit/broker/scratch.h"

namespace broker::audit {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const Subject kDisk{.device = "vda", .type = "blk", .vm = "", .uuid = "", .tenant = ""};

class AuditTrail : public testing::Test {
 protected:
  [[nodiscard]] std::string path() const { return scratch_.file("audit.log"); }
  [[nodiscard]] Answer<std::unique_ptr<Trail>> open(bool required = true) {
    return Trail::open({.log = path(), .kernel = KernelAudit::kOff, .required = required}, *log_);
  }
  static std::vector<std::string> lines(const std::string& file) {
    std::ifstream stream(file);
    std::vector<std::string> all;
    for (std::string line; std::getline(stream, line);) all.push_back(line);
    return all;
  }
  // "audit-opened", …
  static std::vector<std::string> events(const std::string& file) {
    std::vector<std::string> names;
    for (const std::string& line : lines(file)) {
      const auto parsed = parse_line(line);
      names.emplace_back(parsed ? parsed->value("event") : "no event");
    }
    return names;
  }
  static std::vector<std::string> findings(const std::vector<std::string>& files) {
    std::vector<std::string> all;
    Verifier verifier([&](const Verifier::Finding& found) { all.push_back(found.text); }, {});
    for (const std::string& file : files) {
      for (const std::string& line : lines(file)) verifier.line(file, line);
    }
    (void)verifier.finish();
    return all;
  }

  Scratch scratch_;
  Answer<Log> log_ = Log::open("off");
};

TEST_F(AuditTrail, WritesWhatHappensInAChain) {
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    (*trail)->record(Event(Kind::kBrokerStarted));
    (*trail)->serving();
    (*trail)->record(Event(Kind::kBrokerStopped));
  }
  EXPECT_THAT(events(path()), ElementsAre("audit-opened", "broker-started", "broker-stopped"));
  EXPECT_THAT(findings({path()}), IsEmpty());
}

TEST_F(AuditTrail, GoesOnWithTheChainAfterARestart) {
  for (int run = 0; run < 2; ++run) {
    const auto trail = open();
    ASSERT_TRUE(trail);
    (*trail)->serving();
    (*trail)->record(Event(Kind::kBrokerStopped));
  }
  EXPECT_THAT(lines(path()), SizeIs(4));
  EXPECT_THAT(findings({path()}), IsEmpty());
}

TEST_F(AuditTrail, GoesOnWithTheChainInTheNextFile) {
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    (*trail)->serving();
    (*trail)->record(Event(Kind::kBrokerStarted));
    (*trail)->reopen();  // Nothing was moved: nothing happens.
    (*trail)->record(Event(Kind::kDeviceAdded));
  }
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    std::filesystem::rename(path(), path() + ".1");
    (*trail)->serving();
    (*trail)->reopen();
    (*trail)->record(Event(Kind::kBrokerStopped));
  }
  EXPECT_THAT(events(path() + ".1"),
              ElementsAre("audit-opened", "broker-started", "device-added", "audit-opened"));
  EXPECT_THAT(events(path()), ElementsAre("audit-opened", "broker-stopped"));
  EXPECT_THAT(findings({path() + ".1", path()}), IsEmpty());
}

TEST_F(AuditTrail, KeepsTheOldFileWhereTheNextOneCannotBeHad) {
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    std::filesystem::rename(path(), path() + ".1");
    scratch_.write("audit.log", "");
    ASSERT_EQ(::chmod(path().c_str(), 0666), 0);
    (*trail)->serving();
    (*trail)->reopen();
    (*trail)->record(Event(Kind::kBrokerStopped));
  }
  EXPECT_THAT(events(path() + ".1"), ElementsAre("audit-opened", "broker-stopped"));
}

TEST_F(AuditTrail, DoesNotStartWithoutALogThatIsRequired) {
  std::filesystem::create_directory(path());
  const auto trail = open(true);
  ASSERT_FALSE(trail);
  EXPECT_THAT(trail.error(), HasSubstr("--audit=required"));
}

TEST_F(AuditTrail, DoesNotStartWhereOneIsRequiredAndNoneIsNamed) {
  const auto trail = Trail::open({.log = "", .kernel = KernelAudit::kOff, .required = true}, *log_);
  ASSERT_FALSE(trail);
  EXPECT_THAT(trail.error(), HasSubstr("no audit log is named"));
}

TEST_F(AuditTrail, GoesOnWithoutALogThatIsNotRequired) {
  std::filesystem::create_directory(path());
  const auto trail = open(false);
  ASSERT_TRUE(trail);
  EXPECT_FALSE((*trail)->active());
  (*trail)->record(Event(Kind::kBrokerStarted));
}

TEST_F(AuditTrail, BoundsWhatAPeerCausesAndCountsTheRest) {
  constexpr int kFlood = 1000;
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    DeviceTrail device(trail->get(), kDisk, "/srv/a.img");
    for (int i = 0; i < kFlood; ++i) device.record(Event(Kind::kVmmRefused));
    device.record(Event(Kind::kPolicyViolation));
    device.record_dropped();
    device.record_dropped();
  }
  const auto names = events(path());
  EXPECT_THAT(names, Contains("policy-violation").Times(1));
  EXPECT_THAT(names, Contains("events-dropped").Times(1));
  const auto written = std::count(names.begin(), names.end(), "vmm-refused");
  EXPECT_LT(written, kFlood);
  EXPECT_THAT(lines(path()).back(),
              HasSubstr("\"kind\":\"vmm-refused\",\"count\":" + std::to_string(kFlood - written)));
}

TEST_F(AuditTrail, NamesWhatAVmmGotOfADevice) {
  {
    const auto trail = open();
    ASSERT_TRUE(trail);
    DeviceTrail device(trail->get(), kDisk, "/srv/a.img");
    device.record(Event(Kind::kVmmConnected));
  }
  EXPECT_THAT(lines(path()).back(),
              HasSubstr(R"("device":"vda","type":"blk","path":"/srv/a.img")"));
}

}  // namespace
}  // namespace broker::audit
