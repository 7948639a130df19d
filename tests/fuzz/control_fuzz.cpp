// tests/fuzz/control_fuzz.cpp: packets of an operator's client, who may be anyone: each is refused,
// or asks for one thing with a name, an act and numbers that are legal.
//
// Input: packets, each a byte for who asks, two for its length, and its bytes.
#include <cstddef>
#include <cstdint>
#include <string>

#include "broker/control/device_record.h"
#include "broker/control/requests.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using broker::control::Access;
using broker::control::Act;
using broker::control::Caller;
using fuzz::require;

class Checker final : public broker::control::Requests {
 public:
  void status(const Caller& caller) override { asked(caller, Access::kRead); }
  void device(const Caller& caller, const std::string& name, bool next) override {
    asked(caller, Access::kRead);
    legal(name, next);
  }
  void process(const Caller& caller, const std::string& name, std::uint32_t) override {
    asked(caller, Access::kRead);
    legal(name, true);
  }
  void queue(const Caller& caller, const std::string& name, std::uint32_t) override {
    asked(caller, Access::kRead);
    legal(name, false);
  }
  void event(const Caller& caller, std::uint64_t, bool) override { asked(caller, Access::kRead); }
  void settings(const Caller& caller, const std::string& name) override {
    asked(caller, Access::kRead);
    legal(name, false);
  }
  // What has passed as a record comes out of one as it was.
  void add(const Caller& caller, const broker::control::AddRequest& request,
           common::ipc::FdList&) override {
    asked(caller, Access::kChange);
    legal(request.device.name, false);
    const auto again = broker::control::config_of(broker::control::record_of(request.device));
    require(again.has_value() && *again == request.device);
  }
  void order(const Caller& caller, const std::string& name, Act act, bool) override {
    asked(caller, Access::kChange);
    legal(name, false);
    require(static_cast<std::uint32_t>(act) < broker::control::kActCount);
  }
  void group(const Caller& caller, const std::string& name, bool next) override {
    asked(caller, Access::kRead);
    legal(name, next);
  }
  void limit(const Caller& caller, const broker::control::LimitRequest& request) override {
    asked(caller, Access::kChange);
    legal(request.name, false);
    // Whatever was asked for, what comes of it is within bounds, and can be written and read.
    const auto limits = broker::changed_limits({}, request.change, request.type);
    if (!limits) return;
    const std::string text = broker::limits_text(*limits, request.type);
    const auto again = broker::parse_limits(text.empty() ? "none" : text, request.type);
    require(again.has_value() && *again == *limits);
  }
  void put_group(const Caller& caller, const broker::GroupConfig& group) override {
    asked(caller, Access::kChange);
    legal(group.name, false);
  }
  void end_broker(const Caller& caller) override { asked(caller, Access::kChange); }

  int count = 0;

 private:
  void asked(const Caller& caller, Access needs) {
    ++count;
    require(caller.access >= needs);
  }
  static void legal(const std::string& name, bool may_be_empty) {
    require(name.size() <= 64 && (may_be_empty || !name.empty()));
    require(name.find('\0') == std::string::npos);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  while (!input.empty()) {
    const auto access = static_cast<Access>(input.byte() % 3);
    const auto packet = input.bytes(input.word());
    Checker checker;
    common::ipc::FdList none;
    const auto refusal = broker::control::take_request(
        checker, {1, access}, std::as_bytes(std::span(packet.data(), packet.size())), none);
    require(checker.count == (refusal.refused() ? 0 : 1));
  }
  return 0;
}
