#include "tests/chaos/chaos.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/hijack.h"
#include "tests/fakes/process.h"
#include "tests/integration/image.h"

namespace chaos {
namespace {

using Clock = std::chrono::steady_clock;
using fakes::VhostRequest;

constexpr std::uint64_t kBlocks = 64;
constexpr std::uint64_t kSectorsOfQueue = 8 * kBlocks;
constexpr std::uint32_t kEventsOfEpoch = 50;  // Then everything is read back.
constexpr std::size_t kStoryLines = 40;
// What change_memory() adds lies far beyond everything else, and a log has to have bits for it.
constexpr std::uint64_t kFarAddr = 1ULL << 40;
constexpr std::uint64_t kFarBytes = 1 << 20;
// So many requests of each queue after each event.
constexpr std::uint64_t kProgress = 8;

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

Chaos::Chaos(const Plan& plan, Tally& tally)
    : plan_(plan), tally_(tally), random_(plan.seed), versions_(plan.queues) {
  events_ = {
      {"kill a worker", &Chaos::kill_worker, false, 6},
      {"kill all workers", &Chaos::kill_all_workers, false, 2},
      {"crash a worker", &Chaos::crash_worker, false, 2},
      {"kill a worker amid messages", &Chaos::kill_worker_in_the_middle, false, 6},
      {"kill the session", &Chaos::kill_session, false, 3},
      {"kill session and workers", &Chaos::kill_session_and_workers, true, 3},
      {"kill the session amid messages", &Chaos::kill_session_in_the_middle, false, 3},
      {"kill the broker", &Chaos::kill_broker, false, 3},
      {"take over", &Chaos::take_over, false, 3},
      {"upgrade the workers", &Chaos::upgrade_workers, false, 2},
      {"restart the broker", &Chaos::restart_broker, false, 1},
      {"disconnect", &Chaos::disconnect, true, 2},
      {"swap call eventfds", &Chaos::swap_calls, false, 4},
      {"change the memory table", &Chaos::change_memory, false, 4},
      {"pause a queue", &Chaos::pause_queue, false, 3},
      {"stop and start a ring", &Chaos::stop_and_start_ring, false, 3},
      {"grow the disk", &Chaos::grow_disk, false, 2},
      {"switch a migration's log", &Chaos::switch_log, false, 4},
      {"migrate to another broker", &Chaos::migrate, false, 2},
  };
  integration::make_image(images_.file("disk.img"), plan_.queues * kBlocks * 4096);
  start_broker();
  fakes::BlkClient::Options options;
  options.queues = plan_.queues;
  options.shape.slots = 8;
  options.shape.slot_bytes = 4096;
  options.shape.packed = options.forgets_places = plan_.packed;
  if (!plan_.tracked) options.protocol_features = ~fakes::kProtocolInflight;
  client_ = std::make_unique<fakes::BlkClient>(socket_, options);
  start_loads();
}

void Chaos::run() {
  for (std::uint32_t done = 0; done < plan_.events; ++done) {
    const Event& event = pick_event();
    note(event.name);
    (void)take_longest_pause_ms();
    (this->*event.act)();
    expect_progress();
    Tally::Tried& tried = tally_.events[event.name];
    ++tried.count;
    tried.pause_ms.push_back(take_longest_pause_ms());
    if (plan_.verbose) std::printf("  longest pause: %.1f ms\n", tried.pause_ms.back());
    if (done % kEventsOfEpoch == kEventsOfEpoch - 1) {
      stop_loads();
      start_loads();
    }
  }
  stop_loads();
  collect_pauses();
}

const Chaos::Event& Chaos::pick_event() {
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

void Chaos::kill_worker() {
  const auto all = workers();
  if (!all.empty()) kill_all({all[pick(static_cast<std::uint32_t>(all.size()))]});
}

void Chaos::kill_all_workers() { kill_all(workers()); }

void Chaos::crash_worker() {
  const auto all = workers();
  if (all.empty()) return;
  const pid_t victim = all[pick(static_cast<std::uint32_t>(all.size()))];
  try {
    fakes::make_it_crash(victim);
  } catch (const fakes::Failure&) {
    note("it was gone already");
  }
}

void Chaos::kill_worker_in_the_middle() {
  const std::chrono::microseconds delay(pick(3000));
  const auto all = workers();
  if (all.empty()) return;
  const pid_t victim = all[pick(static_cast<std::uint32_t>(all.size()))];
  std::thread killer([&] {
    std::this_thread::sleep_for(delay);
    (void)::kill(victim, SIGKILL);
  });
  try {
    some_messages();
  } catch (...) {
    killer.join();
    throw;
  }
  killer.join();
}

void Chaos::kill_session() {
  kill_all(sessions());
  reconnect();
}

void Chaos::kill_session_and_workers() {
  std::vector<pid_t> victims = workers();
  const auto also = sessions();
  victims.insert(victims.end(), also.begin(), also.end());
  std::ranges::shuffle(victims, random_);
  kill_all(victims);
  reconnect();
}

void Chaos::kill_session_in_the_middle() {
  const std::chrono::microseconds delay(pick(3000));
  const auto victims = sessions();
  std::thread killer([&] {
    std::this_thread::sleep_for(delay);
    kill_all(victims);
  });
  try {
    while (true) some_messages();
  } catch (const fakes::Failure& failure) {
    note(std::string("the session's end was seen: ") + failure.what());
  }
  killer.join();
  reconnect();
}

// The guest goes on, and so does its connection.
void Chaos::kill_broker() {
  collect_pauses();
  broker_->signal(SIGKILL);
  (void)broker_->wait_exit();
  if (pick(2) == 0) kill_worker();  // Whom the next broker replaces.
  broker_ = run_broker(false);
  broker_->wait_ready();
}

void Chaos::take_over() {
  collect_pauses();
  auto next = run_broker(true);
  next->wait_ready();
  fakes::require(broker_->wait_exit() == 0, "the broker does not leave well");
  broker_ = std::move(next);
}

// Nothing that runs is of an older version than the broker after it.
void Chaos::upgrade_workers() { broker_->signal(SIGRTMIN); }

void Chaos::restart_broker() {
  collect_pauses();
  broker_->signal(SIGTERM);
  fakes::require(broker_->wait_exit() == 0, "the broker does not end well");
  start_broker();
  reconnect();
}

void Chaos::disconnect() {
  client_->vhost().disconnect();
  reconnect();
}

void Chaos::swap_calls() {
  const std::uint32_t queue = pick(plan_.queues);
  const std::uint32_t times = 1 + pick(30);
  for (std::uint32_t i = 0; i < times; ++i) {
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, queue,
                                  client_->queue(queue).doorbell().replace());
  }
  client_->queue(queue).doorbell().drop_old();
}

void Chaos::change_memory() {
  const fakes::VmRegion more{kFarAddr, kFarBytes, 1ULL << 50, 0};
  client_->vhost().add_mem_reg(more, client_->memory().file(2));
  if (pick(2) == 0) {
    client_->vhost().rem_mem_reg(more);
  } else {
    client_->send_memory();
  }
}

void Chaos::pause_queue() {
  const std::uint32_t queue = pick(plan_.queues);
  client_->enable(queue, false);
  client_->enable(queue, true);
}

bool Chaos::is_drained(std::uint32_t queue, std::uint32_t base) {
  if (plan_.packed) return (base & 0xffff) == base >> 16;
  return base == client_->queue(queue).driver().used_idx();
}

void Chaos::stop_and_start_ring() {
  const std::uint32_t queue = pick(plan_.queues);
  const std::uint32_t base = client_->stop_ring(queue);
  fakes::require(is_drained(queue, base), "a stopped ring has requests in flight");
  client_->restart_ring(queue, base);
}

// The broker sees it when it looks next, in some event that comes later.
void Chaos::grow_disk() {
  const std::string path = images_.file("disk.img");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) + (1 << 20));
}

// A migration begins, goes on with another log, or is given up.
void Chaos::switch_log() {
  if (log_) fakes::require(log_->nothing_outside_changed(), "written outside of the log");
  if (log_ && pick(2) == 0) {
    client_->log_writes(false);
    log_.reset();
    return;
  }
  constexpr std::uint64_t kBytes = (kFarAddr + kFarBytes) / fakes::kLogPageBytes / 8;
  const auto old = std::exchange(log_, std::make_unique<fakes::DirtyLog>(kBytes, pick(9000)));
  client_->set_log(*log_);
  client_->log_writes(true);
}

// The front-end is the same one; its guest goes on at a broker that did not know it.
void Chaos::migrate() {
  collect_pauses();
  leaving_ = std::move(broker_);
  start_broker(Image::kStillAnothers);
  for (std::uint32_t queue = 0; queue < plan_.queues; ++queue) {
    const std::uint32_t base = client_->stop_ring(queue);
    fakes::require(is_drained(queue, base), "a stopped ring has requests in flight");
  }
  disconnect();
  leaving_->signal(SIGTERM);
  fakes::require(leaving_->wait_exit() == 0, "the source's broker does not end well");
  leaving_.reset();
}

// --- means ---------------------------------------------------------------------------------------

void Chaos::some_messages() {
  switch (pick(5)) {
    case 0:
      return swap_calls();
    case 1:
      return change_memory();
    case 2:
      return pause_queue();
    case 3:
      return switch_log();
    default:
      return stop_and_start_ring();
  }
}

std::uint32_t Chaos::pick(std::uint32_t below) {
  return static_cast<std::uint32_t>(random_() % below);
}

void Chaos::kill_all(const std::vector<pid_t>& victims) {
  for (const pid_t pid : victims) (void)::kill(pid, SIGKILL);
}

std::unique_ptr<fakes::BrokerProcess> Chaos::run_broker(bool takeover, Image image) const {
  std::vector<std::string> arguments = {
      "blk",
      "--socket-path=" + socket_,
      "--blk-file=" + images_.file("disk.img"),
      "--name=" + name_,
      "--engine=" + plan_.engine,
      std::string("--direct=") + (plan_.direct ? "on" : "off"),
      std::string("--lock=") + (image == Image::kOurs ? "on" : "off")};
  if (plan_.packed) arguments.emplace_back("--packed-rings=on");
  if (takeover) arguments.insert(arguments.begin(), "takeover");
  return std::make_unique<fakes::BrokerProcess>(
      fakes::BrokerProcess::Setup{.program = plan_.program, .arguments = arguments});
}

void Chaos::start_broker(Image image) {
  socket_ = sockets_.file("disk" + std::to_string(++brokers_) + ".sock");
  broker_ = run_broker(false, image);
  broker_->wait_ready();
}

void Chaos::start_loads() {
  for (std::uint16_t queue = 0; queue < plan_.queues; ++queue) {
    loads_.push_back(std::make_unique<integration::VerifiedLoad>(
        client_->queue(queue), integration::VerifiedLoad::Plan{
                                   .first_sector = queue * kSectorsOfQueue,
                                   .blocks = kBlocks,
                                   .depth = 8,
                                   .versions = versions_[queue],
                                   .seed = random_() | 1,
                                   .rest = plan_.rest,
                               }));
  }
}

void Chaos::stop_loads() {
  for (std::uint16_t queue = 0; queue < plan_.queues; ++queue) {
    loads_[queue]->stop();
    fakes::require(loads_[queue]->problem().empty(), loads_[queue]->problem());
    tally_.answered += loads_[queue]->answered();
    versions_[queue] = loads_[queue]->verify_all();
  }
  loads_.clear();
}

void Chaos::expect_progress() {
  for (const auto& load : loads_) {
    load->expect_progress(kProgress);
    fakes::require(load->problem().empty(), load->problem());
  }
}

double Chaos::take_longest_pause_ms() {
  double longest = 0;
  for (const auto& load : loads_) {
    longest = std::max(longest, static_cast<double>(load->take_longest_pause().count()) / 1000);
  }
  return longest;
}

// A VMM tries until it is let in: the device may still drain what the last session's workers have.
void Chaos::reconnect() {
  const auto start = Clock::now();
  while (!client_->reconnect(socket_)) {
    fakes::require(milliseconds_since(start) < 10000, "no new connection is served");
  }
  if (log_) client_->set_log(*log_);  // In QEMU's order: the rings first.
  tally_.reconnect_ms.push_back(milliseconds_since(start));
}

void Chaos::note(const std::string& what) {
  if (plan_.verbose) std::printf("%s\n", what.c_str());
  story_.push_back(what);
  if (story_.size() > kStoryLines) story_.pop_front();
}

void Chaos::collect_pauses() {
  std::istringstream lines(broker_->log());
  const std::string mark = " is served again, ";
  for (std::string line; std::getline(lines, line);) {
    if (const auto at = line.find(mark); at != std::string::npos) {
      tally_.restart_ms.push_back(std::stod(line.substr(at + mark.size())));
    }
  }
}

std::string Chaos::story() const {
  std::string text = "the last events:\n";
  for (const std::string& line : story_) text += "  " + line + "\n";
  if (leaving_) text += "the source's broker's log:\n" + leaving_->log();
  return text + "the broker's log:\n" + broker_->log();
}

void Tally::print() const {
  std::printf("| %-49s | %6s | %11s | %11s |\n", "no answer on some queue", "events", "median",
              "worst");
  for (const auto& [name, tried] : events) print_row(name, tried.pause_ms);
  print_row("(a worker's death to the next one serving)", restart_ms);
  print_row("(a connection's end to rings that run again)", reconnect_ms);
  std::printf("%llu requests, none lost, repeated or wrong\n",
              static_cast<unsigned long long>(answered));
}

}  // namespace chaos
