// A session as the release before this one had it: it answers another broker with the version that
// it speaks, whatever that broker's, says again what it had told the one before only after that,
// and does not say the MTU again.
#include "broker/session/workers.h"
#include "common/ipc/session_broker.h"

namespace session {

// The broker before this one has had time for some of what we asked, and maybe no time to answer.
Outcome<void> Workers::on_resume(const common::ipc::Resume& resume) noexcept {
  common::ipc::Resumed resumed{};
  resumed.kind = common::ipc::Resumed::kKind;
  resumed.turn = resume.turn;
  resumed.version = common::ipc::kIpcVersion;
  static_assert(common::kQueuesMax <= common::ipc::kPhasesMax);
  for (std::uint32_t queue = 0; queue < device_.queue_count; ++queue) {
    resumed.phases[queue] = static_cast<std::uint8_t>(links_[queue].phase());
  }
  TRY(broker_.send(resumed));
  TRY(say_what_holds());
  return ask_again();
}

Outcome<void> Workers::say_what_holds() noexcept {
  if (told_features_) {
    common::ipc::DriverFeatures features{};
    features.kind = common::ipc::DriverFeatures::kKind;
    features.features = *told_features_;
    TRY(broker_.send(features));
  }
  return {};
}

}  // namespace session
