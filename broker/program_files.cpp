#include "broker/program_files.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "broker/text.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;

// Whoever can write to these files owns the broker's jails: one that everybody can is refused.
Answer<void> check_program(const Fd& file, const std::string& path) {
  struct stat status {};
  if (::fstat(file.ref().number, &status) != 0) {
    return fail("cannot look at " + in_quotes(path) + ": " + errno_text(errno));
  }
  if (!S_ISREG(status.st_mode) || (status.st_mode & 0111) == 0) {
    return fail(in_quotes(path) + " is no program; reinstall Bulkhead");
  }
  if ((status.st_mode & S_IWOTH) != 0) {
    return fail(in_quotes(path) + " may be written by everybody and is not started; chmod o-w it");
  }
  return {};
}

Answer<Fd> open_program(const std::vector<std::string>& directories, std::string_view name) {
  for (const std::string& directory : directories) {
    const std::string path = directory + "/" + std::string(name);
    Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (file.valid()) {
      TRY(check_program(file, path));
      return file;
    }
    if (errno != ENOENT && errno != ENOTDIR) {
      return fail("cannot open " + in_quotes(path) + ": " + errno_text(errno));
    }
  }
  std::string searched;
  for (const std::string& directory : directories) {
    searched += (searched.empty() ? "" : ", ") + clean_text(directory);
  }
  return fail(std::string(name) + " is missing (looked in " + searched +
              "); it belongs beside the bulkhead program or in its ../libexec/bulkhead");
}

}  // namespace

Answer<Programs> open_programs_in(const std::vector<std::string>& directories) {
  TRY_LET(Fd session, open_program(directories, "bulkhead-session"));
  TRY_LET(Fd worker_blk, open_program(directories, "bulkhead-worker-blk"));
  TRY_LET(Fd worker_net, open_program(directories, "bulkhead-worker-net"));
  TRY_LET(Fd keeper, open_program(directories, "bulkhead-keeper"));
  return Programs{std::move(session), std::move(worker_blk), std::move(worker_net),
                  std::move(keeper)};
}

Answer<Programs> open_programs() {
  char buffer[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", buffer, sizeof(buffer));
  if (length <= 0) {
    return fail("cannot read /proc/self/exe: " + errno_text(errno) + "; is /proc mounted?");
  }
  const std::string self(buffer, static_cast<std::size_t>(length));
  const std::string beside = self.substr(0, self.rfind('/'));
  const std::string prefix = beside.substr(0, beside.rfind('/'));
  return open_programs_in({beside, prefix + "/libexec/bulkhead"});
}

}  // namespace broker
