// tests/chaos/chaos.h: a guest with several queues that never stops working, and a hand that kills,
// swaps and moves everything around it. After every event each queue must get on, and what was
// written must read back; no request may be lost, answered twice or answered wrongly.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/chaos/hand.h"
#include "tests/fakes/blk_client.h"
#include "tests/integration/verified_load.h"

namespace chaos {

class Chaos final : public Hand {
 public:
  Chaos(const Plan& plan, Tally& tally);

 private:
  [[nodiscard]] bool is_drained(std::uint32_t queue, std::uint32_t base);

  // --- events -----------------------------------------------------------------------------------
  void disconnect();
  void swap_calls();
  void change_memory();
  void pause_queue();
  void stop_and_start_ring();
  void grow_disk();
  void switch_log();
  void migrate();

  // --- the hand's -------------------------------------------------------------------------------
  [[nodiscard]] std::vector<std::string> arguments() const override;
  void expect_progress() override;
  [[nodiscard]] double take_longest_pause_ms() override;
  void end_epoch(bool last) override;
  void reconnect() override;
  void some_message() override;

  void start_loads();
  void stop_loads();

  fakes::TempDir images_{BULKHEAD_TEST_IMAGES};
  bool image_is_anothers_ = false;  // Still.
  std::unique_ptr<fakes::BlkClient> client_;
  std::unique_ptr<fakes::DirtyLog> log_;  // While the front-end migrates.
  std::vector<std::vector<std::uint32_t>> versions_;
  std::vector<std::unique_ptr<integration::VerifiedLoad>> loads_;
};

}  // namespace chaos
