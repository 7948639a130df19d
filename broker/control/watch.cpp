// broker/control/watch.cpp: `bulkhead metrics`, `events` and `top`: what a broker's devices do.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>
#include <vector>

#include "broker/control/client.h"
#include "broker/control/json.h"
#include "broker/control/latency_metrics.h"
#include "broker/control/metrics.h"
#include "broker/control/run.h"
#include "broker/control/scrape.h"
#include "broker/text.h"
#include "common/fd.h"

namespace broker::control {
namespace {

std::string_view level_name(std::uint32_t level) {
  constexpr std::array<std::string_view, 4> kNames = {"debug", "info", "warn", "error"};
  return level < kNames.size() ? kNames[level] : "?";
}

std::string time_text(std::uint64_t unix_us) {
  const auto seconds = static_cast<std::time_t>(unix_us / 1'000'000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 64> text{};
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text.data() + length, text.size() - length, ".%03uZ",
                static_cast<unsigned>(unix_us / 1000 % 1000));
  return text.data();
}

std::string event_text(const EventReply& event, bool json) {
  const std::string subject = clean_text(shown(event.subject));
  const std::string text = clean_text(shown(event.text));
  if (!json) {
    return time_text(event.unix_us) + " " + std::string(level_name(event.level)) + " " +
           (subject.empty() ? "" : subject + ": ") + text + "\n";
  }
  return Json("events")
      .number("sequence", event.sequence)
      .text("time", time_text(event.unix_us))
      .text("level", level_name(event.level))
      .text("device", subject)
      .text("text", text)
      .finish();
}

std::string lost_text(std::uint64_t lost, bool json) {
  if (json) return Json("events").number("lost", lost).finish();
  return "(" + std::to_string(lost) + " events are no longer kept)\n";
}

// Asked without waiting first: only a broker that answers may be silent after that.
Answer<std::optional<EventReply>> next_event(Client& client, std::uint64_t seen, bool wait) {
  AskEvent ask;
  ask.after = seen;
  TRY_LET(const std::optional<EventReply> event, client.ask<EventReply>(ask));
  if (event || !wait) return event;
  ask.wait = 1;
  return client.ask<EventReply>(ask, Client::kForEver);
}

struct Sample {
  std::chrono::steady_clock::time_point taken;
  std::vector<DeviceReply> devices;
  std::vector<QueueReply> queues;  // Of those in use.
};

Answer<Sample> sample(Client& client) {
  TRY_LET(std::vector<DeviceReply> devices, client.devices());
  const auto taken = std::chrono::steady_clock::now();
  TRY_LET(std::vector<QueueReply> queues, client.queues(in_use(devices)));
  return Sample{taken, std::move(devices), std::move(queues)};
}

std::vector<Rates> rates_of(const Sample& before, const Sample& now) {
  const double seconds = std::chrono::duration<double>(now.taken - before.taken).count();
  std::vector<Rates> all = rates_between(before.devices, now.devices, seconds);
  for (Rates& one : all) {
    one.latency = latency_between(before.queues, now.queues, name_room(one.name));
  }
  return all;
}

// Written beside it and renamed, so that who reads the file never sees half of it.
int write_file(const std::string& path, const std::string& text) {
  const std::string aside = path + "." + std::to_string(::getpid());
  const common::Fd file(::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  const bool written = file.valid() && ::write(file.ref().number, text.data(), text.size()) ==
                                           static_cast<ssize_t>(text.size());
  if (written && ::rename(aside.c_str(), path.c_str()) == 0) return 0;
  const int os_errno = errno;
  (void)::unlink(aside.c_str());
  return complain("cannot write " + in_quotes(path) + ": " + errno_text(os_errno));
}

}  // namespace

int run_metrics(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  const auto text = scrape(*client, run.json ? MetricsFormat::kJson : MetricsFormat::kPrometheus);
  if (!text) return complain(text.error());
  return run.output.empty() ? print(*text) : write_file(run.output, *text);
}

int run_events(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  std::uint64_t seen = 0;
  while (true) {
    const auto event = next_event(*client, seen, !run.once);
    if (!event) return complain(event.error());
    if (!*event) return 0;
    const std::uint64_t lost = (*event)->sequence - seen - 1;
    std::string text = lost == 0 ? "" : lost_text(lost, run.json);
    text += event_text(**event, run.json);
    if (const int printed = print(text); printed != 0) return printed;
    seen = (*event)->sequence;
  }
}

int run_top(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  auto before = sample(*client);
  if (!before) return complain(before.error());
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  while (true) {
    ::poll(nullptr, 0, static_cast<int>(run.interval_ms));
    auto now = sample(*client);
    if (!now) return complain(now.error());
    const auto rates = rates_of(*before, *now);
    // ECMA-48: cursor to the first place, and erase what is below.
    const std::string clear = terminal && !run.json && !run.once ? "\x1b[H\x1b[J" : "";
    const int printed = print(run.json ? rates_json(rates) : clear + rates_text(rates));
    if (printed != 0 || run.once) return printed;
    before = std::move(now);
  }
}

}  // namespace broker::control
