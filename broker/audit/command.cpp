#include "broker/audit/command.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <utility>

#include "broker/audit/explain.h"
#include "broker/audit/verify.h"
#include "broker/setting_values.h"
#include "broker/text.h"
#include "common/fd.h"

namespace broker::audit {
namespace {

using common::Fd;
// False: no more.
using TakeLine = std::function<bool(std::string_view line)>;

void print(const std::string& line) { (void)std::fputs((line + "\n").c_str(), stdout); }

Answer<Fd> open_log(const std::string& path) {
  const bool standard = path == "-";
  Fd file(standard ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                   : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (file.valid()) return file;
  return common::fail("cannot read " + in_quotes(path) + ": " + errno_text(errno));
}

// Of a line that is longer than any of ours no more is kept than shows it.
Answer<void> read_lines(const std::string& path, const TakeLine& take) {
  TRY_LET(const Fd file, open_log(path));
  std::array<char, 65536> buffer;
  std::string line;
  while (true) {
    const ssize_t got = ::read(file.ref().number, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return common::fail("cannot read " + in_quotes(path) + ": " + errno_text(errno));
    if (got == 0) break;
    std::string_view rest(buffer.data(), static_cast<std::size_t>(got));
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::size_t room = kLineBytesMax + 1 - std::min(kLineBytesMax + 1, line.size());
      line.append(rest.substr(0, std::min(end, room)));
      rest.remove_prefix(end);
      if (rest.empty()) break;
      rest.remove_prefix(1);
      if (!take(line)) return {};
      line.clear();
    }
  }
  if (!line.empty()) (void)take(line);
  return {};
}

// By the number of the first event, so that rotated files may be named in any order.
Answer<std::vector<std::string>> in_order(const std::vector<std::string>& files) {
  std::vector<std::pair<std::uint64_t, std::string>> ranked;
  for (const std::string& file : files) {
    std::uint64_t first = ~std::uint64_t{0};  // An empty one is the newest.
    if (file != "-") {
      TRY(read_lines(file, [&](std::string_view line) {
        const auto parsed = parse_line(line);
        if (parsed) first = parsed->seq;
        return !parsed;
      }));
    }
    ranked.emplace_back(first, file);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& left, const auto& right) { return left.first < right.first; });
  std::vector<std::string> sorted;
  sorted.reserve(ranked.size());
  for (auto& [first, file] : ranked) sorted.push_back(std::move(file));
  return sorted;
}

Answer<int> verify(const Command& command) {
  TRY_LET(const std::vector<std::string> files, in_order(command.files));
  std::uint64_t wrong = 0;
  Verifier verifier(
      [&](const Verifier::Finding& finding) {
        if (finding.wrong) ++wrong;
        print((finding.wrong ? "WRONG  " : "note   ") + finding.text);
      },
      command.head);
  for (const std::string& file : files) {
    std::uint64_t number = 0;
    TRY(read_lines(file, [&](std::string_view line) {
      verifier.line(file + ":" + std::to_string(++number), line);
      return true;
    }));
  }
  const bool whole = verifier.finish();
  print(std::to_string(verifier.events()) + " events, head " + std::to_string(verifier.head().seq) +
        ":" + verifier.head().hash);
  print(whole ? "The chain is whole."
              : "The chain is NOT whole: " + std::to_string(wrong) + " findings.");
  return whole ? 0 : 1;
}

Answer<int> explain_all(const Command& command) {
  bool found = false;
  bool any_wrong = false;
  for (const std::string& file : command.files) {
    TRY(read_lines(file, [&](std::string_view line) {
      const auto parsed = parse_line(line);
      if (!parsed && !command.seq) {
        any_wrong = true;
        print("a line that " + parsed.error());
      }
      if (!parsed || (command.seq && parsed->seq != *command.seq)) return true;
      found = true;
      print(explain(*parsed));
      return true;
    }));
  }
  if (command.seq && !found) {
    std::fprintf(stderr,
                 "bulkhead: there is no event %s in what was given; name the file that has "
                 "it\n",
                 std::to_string(*command.seq).c_str());
  }
  return (command.seq && !found) || any_wrong ? 1 : 0;
}

}  // namespace

int run_command(const Command& command) {
  Command complete = command;
  if (complete.files.empty()) complete.files.emplace_back("-");
  const Answer<int> status =
      complete.what == Command::What::kVerify ? verify(complete) : explain_all(complete);
  const bool written = std::fflush(stdout) == 0;
  if (status) return written ? *status : 1;
  std::fprintf(stderr, "bulkhead: %s\n", status.error().c_str());
  return 2;
}

std::optional<Head> parse_head(std::string_view text) {
  const std::size_t colon = std::min(text.find(':'), text.size());
  const auto seq = parse_number<std::uint64_t>(text.substr(0, colon));
  const std::string_view hash = text.substr(std::min(colon + 1, text.size()));
  const bool legal = seq && *seq >= 1 && *seq <= kSeqMax && hash.size() == 2 * kDigestBytes &&
                     hash.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  if (!legal) return std::nullopt;
  return Head{*seq, std::string(hash)};
}

}  // namespace broker::audit
