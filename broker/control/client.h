// broker/control/client.h: an operator's side of the operator's socket.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/control/messages.h"
#include "broker/control/wire.h"
#include "common/fd.h"

namespace broker::control {

// Whoever listens there does so no more, but for the next broker (broker/keep.h).
[[nodiscard]] bool broker_has_died(const std::string& path);

// A broker that has not answered for so long is given up: it may be stopped, or hang.
inline constexpr std::chrono::milliseconds kAnswerPatience{10'000};

class Client {
 public:
  using Duration = std::chrono::milliseconds;
  // What may come at any time, or never.
  static constexpr Duration kForEver = Duration::max();
  // The exporter's jail has no way to ask who listens.
  enum class Look : bool { kAtNobody, kAtBroker };

  [[nodiscard]] static Answer<Client> connect(const std::string& path,
                                              Duration patience = kAnswerPatience,
                                              Look look = Look::kAtBroker);

  // Nothing: what was asked for is not there. `takes`: how long the broker may take for it, beside
  // the patience.
  template <Message Reply, Message Request>
  [[nodiscard]] Answer<std::optional<Reply>> ask(const Request& request, Duration takes = {}) {
    TRY_LET(const std::vector<std::byte> packet,
            exchange(std::as_bytes(std::span(&request, 1)), {}, takes));
    if (const auto reply = as<Reply>(packet)) return reply;
    TRY_LET(const Told answer, told_of(packet));
    if (answer.outcome == static_cast<std::uint32_t>(Outcome::kNotFound)) return std::nullopt;
    return common::fail(words_of(answer));
  }

  // What is answered by Told: fails unless it was done.
  template <Message Request>
  [[nodiscard]] Answer<Told> order(const Request& request, std::span<const common::FdRef> fds = {},
                                   Duration takes = {}) {
    const auto packet = exchange(std::as_bytes(std::span(&request, 1)), fds, takes);
    if (!packet) {
      return common::fail(packet.error() + ". Whether this was or will be done, 'list' shows then");
    }
    TRY_LET(const Told answer, told_of(*packet));
    if (answer.outcome == static_cast<std::uint32_t>(Outcome::kDone)) return answer;
    return common::fail(words_of(answer));
  }

  // Every device, in the order of the names.
  [[nodiscard]] Answer<std::vector<DeviceReply>> devices();
  // Every queue of these devices that has had a worker, in the order of the devices.
  [[nodiscard]] Answer<std::vector<QueueReply>> queues(const std::vector<DeviceReply>& devices);
  [[nodiscard]] Answer<DeviceReply> device(const std::string& name);

 private:
  Client(common::Fd socket, std::string path, Duration patience, pid_t broker)
      : socket_(std::move(socket)),
        path_(std::move(path)),
        patience_(patience),
        waits_(patience),
        broker_(broker) {}
  [[nodiscard]] Answer<std::vector<std::byte>> exchange(std::span<const std::byte> request,
                                                        std::span<const common::FdRef> fds,
                                                        Duration takes);
  [[nodiscard]] std::string no_answer() const;
  [[nodiscard]] Answer<Told> told_of(std::span<const std::byte> packet) const;
  [[nodiscard]] static std::string words_of(const Told& answer);

  common::Fd socket_;
  std::string path_;
  Duration patience_;
  Duration waits_;  // As the socket is set now.
  pid_t broker_;    // 0: nobody knows.
};

// Those that a VMM uses.
[[nodiscard]] std::vector<DeviceReply> in_use(const std::vector<DeviceReply>& devices);

[[nodiscard]] Name name_room(std::string_view name) noexcept;
// What a broker sent us: made fit to print.
template <std::size_t N>
[[nodiscard]] std::string shown(const Text<N>& room) {
  return text_of(room).value_or("?");
}

}  // namespace broker::control
