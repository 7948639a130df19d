// broker/control/client.h: an operator's side of the operator's socket.
#pragma once

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

class Client {
 public:
  // With `patience`, a broker that does not answer that long is given up.
  [[nodiscard]] static Answer<Client> connect(const std::string& path,
                                              std::chrono::milliseconds patience = {});

  // Nothing: what was asked for is not there.
  template <Message Reply, Message Request>
  [[nodiscard]] Answer<std::optional<Reply>> ask(const Request& request) {
    TRY_LET(const std::vector<std::byte> packet,
            exchange(std::as_bytes(std::span(&request, 1)), {}));
    if (const auto reply = as<Reply>(packet)) return reply;
    TRY_LET(const Told answer, told_of(packet));
    if (answer.outcome == static_cast<std::uint32_t>(Outcome::kNotFound)) return std::nullopt;
    return common::fail(words_of(answer));
  }

  // What is answered by Told: fails unless it was done.
  template <Message Request>
  [[nodiscard]] Answer<Told> order(const Request& request,
                                   std::span<const common::FdRef> fds = {}) {
    TRY_LET(const std::vector<std::byte> packet,
            exchange(std::as_bytes(std::span(&request, 1)), fds));
    TRY_LET(const Told answer, told_of(packet));
    if (answer.outcome == static_cast<std::uint32_t>(Outcome::kDone)) return answer;
    return common::fail(words_of(answer));
  }

  // Every device, in the order of the names.
  [[nodiscard]] Answer<std::vector<DeviceReply>> devices();
  // Every queue of these devices that has had a worker, in the order of the devices.
  [[nodiscard]] Answer<std::vector<QueueReply>> queues(const std::vector<DeviceReply>& devices);
  [[nodiscard]] Answer<DeviceReply> device(const std::string& name);

 private:
  Client(common::Fd socket, std::string path)
      : socket_(std::move(socket)), path_(std::move(path)) {}
  [[nodiscard]] Answer<std::vector<std::byte>> exchange(std::span<const std::byte> request,
                                                        std::span<const common::FdRef> fds);
  [[nodiscard]] Answer<Told> told_of(std::span<const std::byte> packet) const;
  [[nodiscard]] static std::string words_of(const Told& answer);

  common::Fd socket_;
  std::string path_;
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
