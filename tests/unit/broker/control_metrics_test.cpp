#include "broker/control/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>

#include "broker/control/wire.h"
#include "common/device_kind.h"

namespace broker::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

DeviceReply device(const std::string& name, common::DeviceKind kind = common::DeviceKind::kBlk) {
  DeviceReply reply;
  put_text(reply.name, name);
  reply.type = static_cast<std::uint32_t>(kind);
  return reply;
}

void count(DeviceReply& reply, common::Counter counter, std::uint64_t value) {
  reply.counters[static_cast<std::size_t>(counter)] = value;
}

TEST(Metrics, NamesEachCounterWithItsLabels) {
  DeviceReply vda = device("vda");
  count(vda, common::Counter::kReadRequests, 7);
  count(vda, common::Counter::kWrittenBytes, 4096);
  const std::string text = metrics_text({}, {vda}, {});
  EXPECT_THAT(text, HasSubstr("# TYPE bulkhead_block_requests_total counter\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_block_requests_total{device=\"vda\",op=\"read\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_block_bytes_total{device=\"vda\",op=\"write\"} 4096\n"));
}

TEST(Metrics, GiveADeviceTheFamiliesOfItsType) {
  const std::string text = metrics_text({}, {device("eth0", common::DeviceKind::kNet)}, {});
  EXPECT_THAT(text,
              HasSubstr("bulkhead_net_packets_total{device=\"eth0\",direction=\"receive\"} 0"));
  EXPECT_THAT(text, Not(HasSubstr("bulkhead_block_requests_total{device")));
}

// Prometheus refuses a page that begins a family twice, or has a line that is neither.
TEST(Metrics, BeginEachFamilyOnceAndHaveNoStrangeLine) {
  DeviceReply odd = device("vda");
  put_text(odd.vm_name, "a\"b\\c\n");
  std::istringstream lines(metrics_text({}, {odd, device("vdb")}, {QueueReply{}}));
  std::set<std::string> families;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      EXPECT_TRUE(families.insert(line).second) << line;
    }
    EXPECT_TRUE(line.starts_with("# ") || line.starts_with("bulkhead_")) << line;
  }
  EXPECT_FALSE(families.empty());
}

// What promtool check metrics asks for: base units, and _total for counters only.
TEST(Metrics, AreNamedByPrometheusRules) {
  std::istringstream lines(
      metrics_text({}, {device("vda"), device("eth0", common::DeviceKind::kNet)}, {QueueReply{}}));
  const std::regex other_units("micro|milli|nano|_(u|m)s(_|$)|minutes|kilo|mega|_mib");
  for (std::string word, name, type; lines >> word;) {
    if (word != "TYPE") continue;
    lines >> name >> type;
    EXPECT_FALSE(std::regex_search(name, other_units)) << name;
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
  }
}

TEST(Metrics, CountTimeInSeconds) {
  DeviceReply vda = device("vda");
  count(vda, common::Counter::kThrottledUs, 1'500'000);
  EXPECT_THAT(metrics_text({}, {vda}, {}),
              HasSubstr("bulkhead_throttled_seconds_total{device=\"vda\"} 1.5\n"));
  EXPECT_THAT(metrics_json({}, {vda}, {}),
              HasSubstr(R"("name":"bulkhead_throttled_seconds_total","device":"vda","value":1.5)"));
}

TEST(Metrics, EscapeWhatWouldEndALabel) {
  DeviceReply odd = device("vda");
  put_text(odd.vm_name, "a\"b");
  EXPECT_THAT(metrics_text({}, {odd}, {}), HasSubstr(R"(vm="a\"b")"));
}

TEST(Rates, AreDifferencesOverTimeAndBusiestFirst) {
  DeviceReply idle = device("a");
  DeviceReply busy = device("b");
  count(busy, common::Counter::kReadRequests, 100);
  DeviceReply later = busy;
  count(later, common::Counter::kReadRequests, 300);
  const auto rates = rates_between({idle, busy}, {idle, later}, 2.0);
  ASSERT_EQ(rates.size(), 2u);
  EXPECT_EQ(rates[0].name, "b");
  EXPECT_DOUBLE_EQ(rates[0].reads, 100.0);
  EXPECT_DOUBLE_EQ(rates[1].reads, 0.0);
}

TEST(Rates, BeginAnewWithAnotherDeviceOfTheName) {
  DeviceReply before = device("a");
  count(before, common::Counter::kReadRequests, 100);
  const auto rates = rates_between({before}, {device("a"), device("new")}, 1.0);
  EXPECT_DOUBLE_EQ(rates[0].reads, 0.0);
  EXPECT_DOUBLE_EQ(rates[1].reads, 0.0);
}

}  // namespace
}  // namespace broker::control
