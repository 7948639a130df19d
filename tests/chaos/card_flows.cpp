#include "tests/chaos/card_flows.h"

#include <array>
#include <exception>
#include <utility>

#include "tests/fakes/failure.h"

namespace chaos {
namespace {

constexpr int kSliceMs = 100;  // How soon a thread notices that it is to end.
constexpr std::uint64_t kFramesOfTurn = 64;
constexpr std::uint64_t kFramesBeforeRest = 64;
// On their way to the host from one queue: fewer than its socket holds.
constexpr std::uint64_t kWindowToHost = 1024;
// To the guest: more than the workers of some pairs lose when they are killed at once, and so few
// that the tap's queue and the guest's buffers have room for them.
constexpr std::uint64_t kWindowToGuest = 192;
constexpr std::chrono::microseconds kPauseOfFull{500};
constexpr std::uint64_t kBurst = 16;

}  // namespace

void Complaint::watch(const std::function<void()>& work) noexcept {
  try {
    work();
  } catch (const std::exception& failure) {
    const std::lock_guard lock(mutex_);
    if (text_.empty()) text_ = failure.what();
  }
}

void Complaint::raise() {
  const std::lock_guard lock(mutex_);
  if (!text_.empty()) throw fakes::Failure(text_);
}

// --- a queue -------------------------------------------------------------------------------------

QueueFlow::~QueueFlow() = default;

void QueueFlow::start() {
  thread_ = std::thread([this] { complaint_.watch([this] { run(); }); });
}

void QueueFlow::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
}

void QueueFlow::count(std::uint64_t frames) {
  pulse_.beat(frames);
  since_rest_ += frames;
}

void QueueFlow::run() {
  const auto end = [this] { return std::chrono::steady_clock::now() + fakes::kPatience; };
  auto give_up = end();
  while (true) {
    Then then = Then::kAgain;
    {
      const auto held = hold();
      then = turn();
    }
    if (then == Then::kEnd) return;
    if (!stopping_) give_up = end();
    fakes::require(std::chrono::steady_clock::now() < give_up, "not everything comes back");
    if (then == Then::kPause) std::this_thread::sleep_for(kPauseOfFull);
    while (then == Then::kSleep && !queue_.doorbell().wait(kSliceMs) && !stopping_ &&
           !was_reset_.exchange(false)) {
    }
    if (rest_.count() != 0 && since_rest_ >= kFramesBeforeRest && !stopping_) {
      since_rest_ = 0;
      std::this_thread::sleep_for(rest_);
    }
  }
}

std::string QueueFlow::why_it_stands_still() {
  const auto held = hold();
  if (queue_.ring().has_used()) return " stands still: an interrupt was lost";
  return " stands still with " + std::to_string(queue_.ring().outstanding()) + " chains out";
}

void QueueFlow::expect_progress(std::uint64_t times) {
  if (pulse_.gets_on(times)) return;
  complaint_.raise();
  throw fakes::Failure(name_ + why_it_stands_still());
}

// --- sending -------------------------------------------------------------------------------------

SendingFlow::SendingFlow(fakes::NetQueueDriver& queue, std::uint32_t number, Complaint& complaint,
                         std::chrono::microseconds rest)
    : QueueFlow(queue, "transmit queue " + std::to_string(number), complaint, rest),
      number_(number),
      ledger_("from transmit queue " + std::to_string(number), 1) {
  start();
}

void SendingFlow::note_returned() {
  const std::uint64_t returned = sent_ - queue_.ring().outstanding();
  count(returned - returned_.exchange(returned));
}

void SendingFlow::was_reset() {
  QueueFlow::was_reset();
  returned_ = sent_;
}

QueueFlow::Then SendingFlow::turn() {
  while (queue_.harvest()) {
  }
  note_returned();
  if (stopping_) return queue_.ring().outstanding() == 0 ? Then::kEnd : Then::kPause;
  std::uint64_t added = 0;
  bool room = true;
  while (added < kFramesOfTurn && queue_.free_slot() && (room = ledger_.has_room(kWindowToHost))) {
    sent_ = ledger_.next();
    const auto frame = make_frame({true, number_, sent_});
    const std::array<std::uint32_t, 2> cuts = {12, static_cast<std::uint32_t>(frame.size() / 2)};
    queue_.add({.header = {}, .frame = frame}, std::span(cuts).first(sent_ % 3));
    ++added;
  }
  queue_.publish();
  if (added != 0) return Then::kAgain;
  if (!room) return Then::kPause;
  return queue_.ring().enable_interrupts() ? Then::kSleep : Then::kAgain;
}

// --- receiving -----------------------------------------------------------------------------------

ReceivingFlow::ReceivingFlow(fakes::NetQueueDriver& queue, std::uint32_t number, Ledger& ledger,
                             Complaint& complaint, std::chrono::microseconds rest)
    : QueueFlow(queue, "receive queue " + std::to_string(number), complaint, rest),
      ledger_(ledger) {
  start();
}

QueueFlow::Then ReceivingFlow::turn() {
  if (stopping_) return Then::kEnd;
  queue_.offer_buffers();  // After a reset there are none.
  std::uint64_t received = 0;
  for (; received < kFramesOfTurn; ++received) {
    const auto packet = queue_.receive(0);
    if (!packet) break;
    ledger_.arrived(check_frame(packet->frame, false).number);
  }
  count(received);
  return received == kFramesOfTurn ? Then::kAgain : Then::kSleep;
}

// --- the host ------------------------------------------------------------------------------------

HostFlow::HostFlow(const std::string& tap, Ledger& to_guest, std::chrono::microseconds rest)
    : port_(tap), to_guest_(to_guest), rest_(rest) {}

void HostFlow::start(std::function<void(const Stamp&)> arrived, Complaint& complaint) {
  arrived_ = std::move(arrived);
  sender_ = std::thread([this, &complaint] { complaint.watch([this] { send(); }); });
  receiver_ = std::thread([this, &complaint] { complaint.watch([this] { receive(); }); });
}

HostFlow::~HostFlow() {
  stop_ = true;
  stop_sending();
  if (receiver_.joinable()) receiver_.join();
}

void HostFlow::stop_sending() {
  stop_sending_ = true;
  if (sender_.joinable()) sender_.join();
}

// What the tap does not take is lost: the ledger knows whether it may be.
void HostFlow::send() {
  while (!stop_sending_) {
    std::uint64_t sent = 0;
    for (; sent < kBurst && to_guest_.has_room(kWindowToGuest); ++sent) {
      (void)port_.try_send({.header = {}, .frame = make_frame({false, 0, to_guest_.next()})});
    }
    std::this_thread::sleep_for(sent == 0 ? kPauseOfFull : rest_ / 4);
  }
}

void HostFlow::receive() {
  while (!stop_) {
    std::optional<fakes::NetPacket> packet;
    try {
      packet = port_.receive(kSliceMs);
    } catch (const fakes::Failure&) {
      if (downs_-- <= 0) throw;
    }
    if (packet) arrived_(check_frame(packet->frame, true));
  }
}

}  // namespace chaos
