#include "broker/exporter/jail.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "broker/text.h"
#include "common/layers.h"
#include "policy/capabilities.h"
#include "policy/exporter.h"
#include "policy/jail.h"
#include "policy/landlock.h"
#include "policy/rlimits.h"
#include "policy/sanitizer.h"
#include "policy/seccomp.h"

namespace broker::exporter {
namespace {

using common::LayerResult;

constexpr int kListener = static_cast<int>(policy::ExporterFd::kListener);

auto without(std::string_view what, int os_errno) {
  return common::fail("it does not serve without " + std::string(what) + ": " +
                      errno_text(os_errno) +
                      "; is that forbidden where it was started (SystemCallFilter=)?");
}

// A manager that has taken all of them may forbid the call as well: then there is nothing to do.
Answer<void> drop_capabilities() {
  if (policy::all_capabilities_gone()) return {};
  const auto dropped = policy::drop_all_capabilities();
  if (!dropped) return without("giving up capabilities", dropped.error().os_errno);
  return {};
}

void note(Lacking& lacking, common::Layer layer, int os_errno) {
  if (!lacking.layers.empty()) lacking.layers += ", ";
  lacking.layers += std::string(common::layer_name(layer)) + " (" + errno_text(os_errno) + ")";
  if (common::strict_requires(layer)) lacking.below_strict = true;
}

void note_absent(Lacking& lacking, common::Layer layer, const LayerResult& result) {
  if (result.state == LayerResult::State::kAbsent) note(lacking, layer, result.os_errno);
}

// No process, no queue, no locked memory, no core; and no more descriptors than its list can name.
common::Result<void> lower_limits() {
  TRY(policy::set_early_rlimits());
  constexpr policy::JailLimits kLimits{.file_size_bytes = RLIM_INFINITY,  // Of a log, if any.
                                       .descriptors = policy::kExporterDescriptorsMax,
                                       .processes = 0};
  return policy::set_final_rlimits(kLimits, true);
}

}  // namespace

Answer<common::Fd> arrange_descriptors(common::Fd listener) {
  const auto failed = [](std::string_view what) {
    return common::fail("cannot arrange descriptors: " + std::string(what) + ": " +
                        errno_text(errno));
  };
  // Out of the way of those that are placed below it.
  common::Fd above(::fcntl(listener.ref().number, F_DUPFD_CLOEXEC, kListener + 1));
  if (!above.valid()) return failed("dup");
  common::Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nothing.valid()) return failed("/dev/null");
  for (const int number : {STDIN_FILENO, STDOUT_FILENO}) {
    if (::dup2(nothing.ref().number, number) < 0) return failed("dup2");
  }
  // Where nobody has opened one, what goes wrong is not to go to a client.
  if (::fcntl(STDERR_FILENO, F_GETFD) < 0 && ::dup2(nothing.ref().number, STDERR_FILENO) < 0) {
    return failed("dup2");
  }
  (void)listener.release();  // By number from here on: it may be the very one.
  if (::dup3(above.ref().number, kListener, O_CLOEXEC) < 0) return failed("dup3");
  common::Fd placed(kListener);
  if (::syscall(SYS_close_range, kListener + 1, ~0U, 0U) != 0) return failed("close_range");
  // Closed by now, or one of the three that are to stay.
  (void)above.release();
  (void)nothing.release();
  return placed;
}

Answer<Lacking> give_up_privileges() {
  TRY(drop_capabilities());
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return without("no_new_privs", errno);
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return without("not dumpable", errno);

  using common::Layer;
  Lacking lacking;
  note_absent(lacking, Layer::kLandlock, policy::deny_all_by_landlock());
  const auto limited = lower_limits();
  if (!limited) note(lacking, Layer::kRlimits, limited.error().os_errno);
  note_absent(lacking, Layer::kMdwe, policy::take_mdwe());
  return lacking;
}

Answer<void> seal() {
  // Sanitizers ask the kernel for more.
  if (policy::kSanitizerBuild) return {};
  const auto sealed = policy::install_own_filter(policy::kExporter);
  if (!sealed) return without("its list of system calls (seccomp)", sealed.error().os_errno);
  return {};
}

}  // namespace broker::exporter
