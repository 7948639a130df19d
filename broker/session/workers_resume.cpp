// Another broker has taken the place of the one that started this session (broker/keep.h).
#include <algorithm>

#include "broker/session/workers.h"
#include "common/ipc/session_broker.h"

namespace session {

// The broker before this one has had time for some of what we asked, and maybe no time to answer.
Outcome<void> Workers::on_resume(const common::ipc::Resume& resume) noexcept {
  common::ipc::Resumed resumed{};
  resumed.kind = common::ipc::Resumed::kKind;
  resumed.turn = resume.turn;
  resumed.version = broker_speaks_ = std::min(common::ipc::kIpcVersion, resume.version);
  told_of_old_workers_ = false;
  static_assert(common::kQueuesMax <= common::ipc::kPhasesMax);
  for (std::uint32_t queue = 0; queue < device_.queue_count; ++queue) {
    resumed.phases[queue] = static_cast<std::uint8_t>(links_[queue].phase());
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

}  // namespace session
