// tests/chaos/cards.h: a guest whose card has several pairs of queues, and a host, which send each
// other stamped frames without a rest, and a hand that kills, swaps and moves everything around
// them.
//
// Always: no frame that arrives differs in any byte from one that was sent, or was never sent.
// Every chain comes back once, in order. After every event each queue gets on, woken by its bell.
//
// Each frame arrives exactly once, but for these.
//
// To the host:
//   the death of a queue's worker: at most 32 that had not been given back come twice;
//   a reset of the card: what had not been given back is lost;
//   the tap is down: what is sent is lost.
//
// To the guest, where none ever comes twice:
//   the death of a queue's worker: at most 32 of its queue are lost;
//   a session's end, a restart by SIGTERM, a reset of the card, a pair that is switched off and on,
//   a tap that is down: what is sent meanwhile is lost;
//   up to 3 s after the link has changed (a session's end, the tap is down): any, since the kernel
//   acts on that late;
//   a card with more than one pair, any event: any. While the workers of one pair are replaced its
//   queue of the tap is detached, and the kernel drops what waits there.
//
// With packed rings a session's end is a reset of the card, too.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/chaos/card_flows.h"
#include "tests/chaos/hand.h"
#include "tests/chaos/ledger.h"
#include "tests/fakes/net_client.h"
#include "tests/fakes/net_namespace.h"

namespace chaos {

class Cards final : public Hand {
 public:
  Cards(const Plan& plan, Tally& tally);

 private:
  // --- events -----------------------------------------------------------------------------------
  void disconnect();
  void swap_calls();
  void change_memory();
  void pause_queue();
  void pause_pair();
  void stop_and_start_ring();
  void reset_card();
  void take_tap_down();

  // --- the hand's -------------------------------------------------------------------------------
  [[nodiscard]] std::vector<std::string> arguments() const override;
  void before_event() override;
  void expect_progress() override;
  [[nodiscard]] double take_longest_pause_ms() override;
  void end_epoch(bool last) override;
  void reconnect() override;
  void some_message() override;
  void upgrading() override { victims_ = workers(); }
  void about_to_kill(const std::vector<pid_t>& victims) override;

  void link_changes();
  void start_flows();
  [[nodiscard]] QueueFlow& flow(std::uint32_t queue);
  // While nobody uses the rings: these are made anew.
  void start_anew(const std::function<void()>& meanwhile);

  fakes::NetNamespace network_;
  std::unique_ptr<fakes::NetClient> client_;
  Complaint complaint_;
  Ledger to_guest_{"to the guest", kFlows};
  std::vector<std::unique_ptr<SendingFlow>> senders_;      // By pair.
  std::vector<std::unique_ptr<ReceivingFlow>> receivers_;  // By pair.
  std::unique_ptr<HostFlow> host_;
  std::vector<pid_t> victims_;
  std::chrono::steady_clock::time_point link_settles_at_{};
};

}  // namespace chaos
