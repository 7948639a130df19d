#include "tests/chaos/hand.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <thread>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/hijack.h"

namespace chaos {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kEventsOfEpoch = 50;
constexpr std::size_t kStoryLines = 40;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void print_row(const std::string& name, std::vector<double> pause_ms) {
  if (pause_ms.empty()) return;
  std::ranges::sort(pause_ms);
  std::printf("| %-49s | %6zu | %8.1f ms | %8.1f ms |\n", name.c_str(), pause_ms.size(),
              pause_ms[pause_ms.size() / 2], pause_ms.back());
}

}  // namespace

Hand::Hand(const Plan& plan, Tally& tally, const std::string& program)
    : plan_(plan),
      tally_(tally),
      random_(plan.seed),
      workers_title_(program + ": " + name_ + "/"),
      events_({
          {"kill a worker", [this] { kill_worker(); }, false, 6},
          {"kill all workers", [this] { kill_all_workers(); }, false, 2},
          {"crash a worker", [this] { crash_worker(); }, false, 2},
          {"kill a worker amid messages", [this] { kill_worker_in_the_middle(); }, false, 6},
          {"kill the session", [this] { kill_session(); }, false, 3},
          {"kill session and workers", [this] { kill_session_and_workers(); }, true, 3},
          {"kill the session amid messages", [this] { kill_session_in_the_middle(); }, false, 3},
          {"kill the broker", [this] { kill_broker(); }, false, 3},
          {"take over", [this] { take_over(); }, false, 3},
          {"upgrade the workers", [this] { upgrade_workers(); }, false, 2},
          {"restart the broker", [this] { restart_broker(); }, false, 1},
      }) {}

void Hand::run() {
  for (std::uint32_t done = 0; done < plan_.events; ++done) {
    const Event& event = pick_event();
    note(event.name);
    (void)take_longest_pause_ms();
    before_event();
    event.act();
    expect_progress();
    Tally::Tried& tried = tally_.events[event.name];
    ++tried.count;
    tried.pause_ms.push_back(take_longest_pause_ms());
    if (plan_.verbose) std::printf("  longest pause: %.1f ms\n", tried.pause_ms.back());
    const bool last = done + 1 == plan_.events;
    if (last || done % kEventsOfEpoch == kEventsOfEpoch - 1) end_epoch(last);
  }
  collect_pauses();
}

const Hand::Event& Hand::pick_event() {
  const auto possible = [this](const Event& event) {
    return plan_.tracked || !event.needs_tracking;
  };
  std::uint32_t sum = 0;
  for (const Event& event : events_) sum += possible(event) ? event.weight : 0;
  std::uint32_t at = pick(sum);
  for (const Event& event : events_) {
    if (!possible(event)) continue;
    if (at < event.weight) return event;
    at -= event.weight;
  }
  throw fakes::Failure("no event has this number");
}

// --- events --------------------------------------------------------------------------------------

// None where none is there just now.
std::vector<pid_t> Hand::pick_worker() {
  const auto all = workers();
  if (all.empty()) return {};
  return {all[pick(static_cast<std::uint32_t>(all.size()))]};
}

void Hand::kill_worker() { kill_all(pick_worker()); }

void Hand::kill_all_workers() { kill_all(workers()); }

void Hand::crash_worker() {
  const auto victim = pick_worker();
  if (victim.empty()) return;
  about_to_kill(victim);
  try {
    fakes::make_it_crash(victim[0]);
  } catch (const fakes::Failure&) {
    note("it was gone already");
  }
}

void Hand::kill_worker_in_the_middle() {
  const std::chrono::microseconds delay(pick(3000));
  const auto victim = pick_worker();
  if (victim.empty()) return;
  about_to_kill(victim);
  std::thread killer([&] {
    std::this_thread::sleep_for(delay);
    (void)::kill(victim[0], SIGKILL);
  });
  try {
    some_message();
  } catch (...) {
    killer.join();
    throw;
  }
  killer.join();
}

void Hand::kill_session() {
  kill_all(sessions());
  reconnect();
}

void Hand::kill_session_and_workers() {
  std::vector<pid_t> victims = workers();
  const auto also = sessions();
  victims.insert(victims.end(), also.begin(), also.end());
  std::ranges::shuffle(victims, random_);
  kill_all(victims);
  reconnect();
}

void Hand::kill_session_in_the_middle() {
  const std::chrono::microseconds delay(pick(3000));
  const auto victims = sessions();
  std::thread killer([&] {
    std::this_thread::sleep_for(delay);
    kill_all(victims);
  });
  try {
    while (true) some_message();
  } catch (const fakes::Failure& failure) {
    note(std::string("the session's end was seen: ") + failure.what());
  }
  killer.join();
  reconnect();
}

// The guest goes on, and so does its connection.
void Hand::kill_broker() {
  collect_pauses();
  broker_->signal(SIGKILL);
  (void)broker_->wait_exit();
  if (pick(2) == 0) kill_worker();  // Whom the next broker replaces.
  broker_ = run_broker(false);
  broker_->wait_ready();
}

void Hand::take_over() {
  collect_pauses();
  auto next = run_broker(true);
  next->wait_ready();
  fakes::require(broker_->wait_exit() == 0, "the broker does not leave well");
  broker_ = std::move(next);
}

// Nothing that runs is of an older version than the broker after it.
void Hand::upgrade_workers() {
  upgrading();
  broker_->signal(SIGRTMIN);
}

void Hand::restart_broker() {
  collect_pauses();
  broker_->signal(SIGTERM);
  fakes::require(broker_->wait_exit() == 0, "the broker does not end well");
  start_broker();
  reconnect();
}

// --- means ---------------------------------------------------------------------------------------

std::uint32_t Hand::pick(std::uint32_t below) {
  return static_cast<std::uint32_t>(random_() % below);
}

void Hand::kill_all(const std::vector<pid_t>& victims) {
  about_to_kill(victims);
  for (const pid_t pid : victims) (void)::kill(pid, SIGKILL);
}

std::unique_ptr<fakes::BrokerProcess> Hand::run_broker(bool takeover) const {
  std::vector<std::string> words = arguments();
  words.push_back("--socket-path=" + socket_);
  words.push_back("--name=" + name_);
  words.push_back("--engine=" + plan_.engine);
  if (plan_.packed) words.emplace_back("--packed-rings=on");
  if (takeover) words.insert(words.begin(), "takeover");
  return std::make_unique<fakes::BrokerProcess>(
      fakes::BrokerProcess::Setup{.program = plan_.program, .arguments = words});
}

void Hand::start_broker() {
  socket_ = sockets_.file("device" + std::to_string(++brokers_) + ".sock");
  broker_ = run_broker(false);
  broker_->wait_ready();
}

void Hand::try_until_let_in(const std::function<bool()>& connects) {
  const auto start = Clock::now();
  while (!connects()) {
    fakes::require(milliseconds_since(start) < 10000, "no new connection is served");
  }
  tally_.reconnect_ms.push_back(milliseconds_since(start));
}

void Hand::note(const std::string& what) {
  if (plan_.verbose) std::printf("%s\n", what.c_str());
  story_.push_back(what);
  if (story_.size() > kStoryLines) story_.pop_front();
}

void Hand::collect_pauses() {
  std::istringstream lines(broker_->log());
  const std::string mark = " is served again, ";
  for (std::string line; std::getline(lines, line);) {
    if (const auto at = line.find(mark); at != std::string::npos) {
      tally_.restart_ms.push_back(std::stod(line.substr(at + mark.size())));
    }
  }
}

std::string Hand::story() const {
  std::string text = "the last events:\n";
  for (const std::string& line : story_) text += "  " + line + "\n";
  if (leaving_) text += "the source's broker's log:\n" + leaving_->log();
  return text + "the broker's log:\n" + broker_->log();
}

void Tally::print(bool card) const {
  std::printf("| %-49s | %6s | %11s | %11s |\n", "no answer on some queue", "events", "median",
              "worst");
  for (const auto& [name, tried] : events) print_row(name, tried.pause_ms);
  print_row("(a worker's death to the next one serving)", restart_ms);
  print_row("(a connection's end to rings that run again)", reconnect_ms);
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  if (card) {
    std::printf(
        "%llu frames, none torn, altered or invented; %llu sent twice and %llu lost, each "
        "where it may be\n",
        number(answered), number(repeated), number(lost));
  } else {
    std::printf("%llu requests, none lost, repeated or wrong\n", number(answered));
  }
}

}  // namespace chaos
