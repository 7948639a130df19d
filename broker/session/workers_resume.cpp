// Another broker has taken the place of the one that started this session (broker/keep.h).
#include <algorithm>
#include <array>

#include "broker/session/workers.h"
#include "common/ipc/session_broker.h"

namespace session {
namespace {

using State = QueueLink::State;
using common::FdRef;

common::ipc::QueuePhase phase_of(State state) noexcept {
  using common::ipc::QueuePhase;
  switch (state) {
    case State::kNone:
      return QueuePhase::kNone;
    case State::kOpening:
      return QueuePhase::kOpening;
    case State::kStarting:
      return QueuePhase::kStarting;
    case State::kServing:
      return QueuePhase::kServing;
    case State::kClosing:
      return QueuePhase::kClosing;
  }
  return QueuePhase::kNone;
}

}  // namespace

// The broker before this one has had time for some of what we asked, and maybe no time to answer.
Outcome<void> Workers::on_resume(const common::ipc::Resume& resume) noexcept {
  common::ipc::Resumed resumed{};
  resumed.kind = common::ipc::Resumed::kKind;
  resumed.turn = resume.turn;
  resumed.version = std::min(common::ipc::kIpcVersion, resume.version);
  static_assert(common::kQueuesMax <= common::ipc::kPhasesMax);
  for (std::uint32_t queue = 0; queue < device_.queue_count; ++queue) {
    resumed.phases[queue] = static_cast<std::uint8_t>(phase_of(links_[queue].state()));
  }
  TRY(say_what_holds());
  TRY(broker_.send(resumed));
  return ask_again();
}

Outcome<void> Workers::say_what_holds() noexcept {
  if (told_features_) {
    common::ipc::DriverFeatures features{};
    features.kind = common::ipc::DriverFeatures::kKind;
    features.features = *told_features_;
    TRY(broker_.send(features));
  }
  if (device_.host_mtu == 0) return {};
  common::ipc::HostMtu mtu{};
  mtu.kind = common::ipc::HostMtu::kKind;
  mtu.mtu = device_.host_mtu;
  return broker_.send(mtu);
}

Outcome<void> Workers::ask_again() noexcept {
  if (awaits_inflight_) {
    common::ipc::MakeInflight make{};
    make.kind = common::ipc::MakeInflight::kKind;
    make.bytes = inflight_bytes_;
    TRY(broker_.send(make));
  }
  if (!swapping_) return {};
  common::ipc::SwapCall swap{};
  swap.kind = common::ipc::SwapCall::kKind;
  swap.queue = *swapping_;
  const std::array<FdRef, 1> fds = {device_.rings[*swapping_].call.ref()};
  return broker_.send(swap, fds);
}

}  // namespace session
