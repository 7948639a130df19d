// worker/net_control.h: serves the control virtqueue (virtio 1.2, 5.1.6.5), which is there only
// where the front-end does not keep it for itself. What a command changes is the tap, and that is
// the broker's: this worker parses what the guest wrote and asks in numbers.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "worker/net_virtqueue.h"

namespace worker {

// A command as far as it was understood: what the broker is to do, or nothing where it is done.
struct ParsedControl {
  bool accepted = false;
  bool ask = false;
  common::ipc::NetControl order{};
};

// What the guest has said so far of what it wants to receive: commands change parts of it.
struct ReceiveFilter {
  std::uint64_t modes = 0;  // Bit n: kRx command n.
  common::net::Mac own_mac{};
  std::uint16_t unicasts = 0;
  std::uint32_t multicasts = 0;
  std::array<common::net::Mac, common::ipc::kNetFilterMacsMax> macs{};
};

class NetControlParser {
 public:
  NetControlParser(std::uint64_t features, std::uint32_t pairs) noexcept
      : features_(features), pairs_(pairs) {}
  // `command`: class, command and data, a copy.
  [[nodiscard]] ParsedControl parse(std::span<const std::byte> command) noexcept;

 private:
  [[nodiscard]] ParsedControl receive_mode(std::uint8_t command,
                                           std::span<const std::byte> data) noexcept;
  [[nodiscard]] ParsedControl mac(std::uint8_t command, std::span<const std::byte> data) noexcept;
  [[nodiscard]] bool mac_table(std::span<const std::byte> data) noexcept;
  [[nodiscard]] ParsedControl filter_order() const noexcept;
  [[nodiscard]] bool has(std::uint64_t feature) const noexcept {
    return (features_ & feature) == feature;
  }

  std::uint64_t features_;
  std::uint32_t pairs_;
  ReceiveFilter filter_;
};

// The way to the broker; tests have their own.
class ControlLink {
 public:
  virtual ~ControlLink() = default;
  // True if the broker has done it. False also where it did not answer before it said stop.
  [[nodiscard]] virtual bool ask(const common::ipc::NetControl& order) noexcept = 0;
};

class BrokerControlLink final : public ControlLink {
 public:
  // `engine` watches `socket` as its tap.
  BrokerControlLink(common::FdRef socket, TapEngine& engine) noexcept
      : socket_(socket), engine_(engine) {}
  [[nodiscard]] bool ask(const common::ipc::NetControl& order) noexcept override;

 private:
  common::FdRef socket_;
  TapEngine& engine_;
  std::uint32_t turn_ = 0;
};

class NetControl {
 public:
  // `parts.engine` and `link` are borrowed. Null and a fault on the status page where the ring does
  // not lie in guest memory or is misaligned.
  [[nodiscard]] static std::unique_ptr<NetControl> create(const NetQueueParts& parts,
                                                          ControlLink& link) noexcept;
  // Serves until the broker says stop, the guest breaks the ring, or the host fails.
  [[nodiscard]] common::ipc::WorkerExit run() noexcept;

  ~NetControl();

 private:
  struct State;
  template <typename Ring>
  struct Serving;
  template <typename Ring>
  [[nodiscard]] static std::unique_ptr<State> make(const NetQueueParts& parts,
                                                   ControlLink& link) noexcept;
  explicit NetControl(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace worker
