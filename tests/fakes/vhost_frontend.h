// tests/fakes/vhost_frontend.h: a VMM's half of vhost-user over a real socket, honest or not.
//
// Knows the messages from the specification alone and shares no code with the session, so that a
// misreading there cannot agree with itself here. Every wait ends after kPatience.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

// How long a fake waits for what must come: so long that only a fault reaches it.
inline constexpr std::chrono::seconds kPatience{10};

// vhost-user, "Front-end message types".
enum class VhostRequest : std::uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetLogBase = 6,
  kSetLogFd = 7,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSendRarp = 19,
  kNetSetMtu = 20,
  kSetBackendReqFd = 21,
  kIotlbMsg = 22,
  kSetVringEndian = 23,
  kGetConfig = 24,
  kSetConfig = 25,
  kPostcopyAdvise = 28,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kVringKick = 35,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
  kSetStatus = 39,
  kGetStatus = 40,
  kSetDeviceStateFd = 42,
  kCheckDeviceState = 43,
};

inline constexpr std::uint32_t kVhostVersion = 0x1;
inline constexpr std::uint32_t kVhostReply = 0x4;
inline constexpr std::uint32_t kVhostNeedReply = 0x8;
inline constexpr std::uint64_t kVhostNoFd =
    0x100;  // SET_VRING_KICK, CALL, ERR: no descriptor comes.
inline constexpr std::uint64_t kVhostFeatureProtocol = 1ULL << 30;
inline constexpr std::uint64_t kVhostFeatureLogAll = 1ULL << 26;
inline constexpr std::uint32_t kVringFlagLog = 1;  // VringAddr::flags.

// Protocol feature bits, as masks.
inline constexpr std::uint64_t kProtocolMq = 1ULL << 0;
inline constexpr std::uint64_t kProtocolLogShmfd = 1ULL << 1;
inline constexpr std::uint64_t kProtocolReplyAck = 1ULL << 3;
inline constexpr std::uint64_t kProtocolBackendReq = 1ULL << 5;
inline constexpr std::uint64_t kProtocolConfig = 1ULL << 9;
inline constexpr std::uint64_t kProtocolBackendSendFd = 1ULL << 10;
inline constexpr std::uint64_t kProtocolInflight = 1ULL << 12;
inline constexpr std::uint64_t kProtocolGetVringBaseInflight = 1ULL << 20;
inline constexpr std::uint64_t kProtocolResetDevice = 1ULL << 13;
inline constexpr std::uint64_t kProtocolMemSlots = 1ULL << 15;
inline constexpr std::uint64_t kProtocolStatus = 1ULL << 16;
inline constexpr std::uint64_t kProtocolDeviceState = 1ULL << 19;

struct VhostHeader {
  std::uint32_t request = 0;
  std::uint32_t flags = kVhostVersion;
  std::uint32_t size = 0;
};
static_assert(sizeof(VhostHeader) == 12);

struct VringState {
  std::uint32_t index = 0;
  std::uint32_t value = 0;
};

struct VringAddr {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;
  std::uint64_t desc = 0;  // VMM addresses.
  std::uint64_t used = 0;
  std::uint64_t avail = 0;
  std::uint64_t log = 0;
};
static_assert(sizeof(VringAddr) == 40);

// Of the in-flight region, as C lays it out.
struct VhostInflight {
  std::uint64_t mmap_bytes = 0;
  std::uint64_t mmap_offset = 0;
  std::uint16_t queues = 0;
  std::uint16_t queue_size = 0;
  std::uint32_t padding = 0;
};
static_assert(sizeof(VhostInflight) == 24);

// SET_LOG_BASE, and its reply.
struct VhostLog {
  std::uint64_t mmap_bytes = 0;
  std::uint64_t mmap_offset = 0;
};

struct VhostReply {
  VhostHeader header;
  std::vector<std::byte> payload;
  common::Fd file;  // Where one came.

  [[nodiscard]] std::uint64_t u64() const;
};

class VhostFrontend {
 public:
  // Retries until something listens there.
  explicit VhostFrontend(const std::string& socket_path);
  explicit VhostFrontend(common::Fd connected) noexcept : socket_(std::move(connected)) {}

  [[nodiscard]] common::FdRef socket() const noexcept { return socket_.ref(); }
  void disconnect() noexcept { socket_.reset(); }

  // --- as rude as needed ------------------------------------------------------------------------

  // False where the back-end has hung up.
  bool send_bytes(std::span<const std::byte> bytes, std::span<const common::FdRef> fds = {});
  bool send_raw(const VhostHeader& header, std::span<const std::byte> payload = {},
                std::span<const common::FdRef> fds = {});
  // The next message from the back-end; nothing where it hung up. Fails after kPatience.
  [[nodiscard]] std::optional<VhostReply> receive();
  // True once the back-end has hung up; what it says before that is thrown away.
  [[nodiscard]] bool hung_up();

  // --- polite -----------------------------------------------------------------------------------

  // From now on NEED_REPLY is on every request that has no reply of its own, and a refusal fails.
  void ask_for_acks(bool on) noexcept { acks_ = on; }
  // rust-vmm's habit: NEED_REPLY on requests that have a reply of their own, too.
  void need_reply_on_gets(bool on) noexcept { need_reply_on_gets_ = on; }

  // Sends a request; waits for its ack where acks are on.
  void request(VhostRequest request, std::span<const std::byte> payload = {},
               std::span<const common::FdRef> fds = {});
  // Sends with NEED_REPLY whatever the setting is; the answer is 0 for success.
  [[nodiscard]] std::uint64_t request_for_ack(VhostRequest request,
                                              std::span<const std::byte> payload = {},
                                              std::span<const common::FdRef> fds = {});
  // Sends a request that has a reply of its own, and checks that reply's header.
  [[nodiscard]] VhostReply ask(VhostRequest request, std::span<const std::byte> payload = {},
                               std::span<const common::FdRef> fds = {});

  [[nodiscard]] std::uint64_t get_u64(VhostRequest request) { return ask(request).u64(); }
  void set_u64(VhostRequest request, std::uint64_t value);
  void set_vring(VhostRequest request, std::uint32_t index, std::uint32_t value);

  void set_owner() { request(VhostRequest::kSetOwner); }
  [[nodiscard]] std::uint64_t get_features() { return get_u64(VhostRequest::kGetFeatures); }
  void set_features(std::uint64_t bits) { set_u64(VhostRequest::kSetFeatures, bits); }
  [[nodiscard]] std::uint64_t get_protocol_features() {
    return get_u64(VhostRequest::kGetProtocolFeatures);
  }
  void set_protocol_features(std::uint64_t bits) {
    set_u64(VhostRequest::kSetProtocolFeatures, bits);
  }
  [[nodiscard]] std::uint64_t get_queue_num() { return get_u64(VhostRequest::kGetQueueNum); }
  [[nodiscard]] std::uint64_t get_max_mem_slots() { return get_u64(VhostRequest::kGetMaxMemSlots); }

  void set_mem_table(const VmMemory& memory);
  void set_mem_table(std::span<const VmRegion> regions, std::span<const common::FdRef> fds);
  void add_mem_reg(const VmRegion& region, common::FdRef file);
  void rem_mem_reg(const VmRegion& region);

  void set_vring_num(std::uint32_t index, std::uint32_t size) {
    set_vring(VhostRequest::kSetVringNum, index, size);
  }
  void set_vring_base(std::uint32_t index, std::uint32_t base) {
    set_vring(VhostRequest::kSetVringBase, index, base);
  }
  void set_vring_enable(std::uint32_t index, bool on) {
    set_vring(VhostRequest::kSetVringEnable, index, on ? 1 : 0);
  }
  void set_vring_addr(const VringAddr& addr);
  [[nodiscard]] std::uint32_t get_vring_base(std::uint32_t index);
  // What GET_INFLIGHT_FD brought; a size of 0: nothing.
  struct InflightFile {
    VhostInflight description;
    common::Fd file;
  };
  [[nodiscard]] InflightFile get_inflight_fd(std::uint16_t queues, std::uint16_t queue_size);
  void set_inflight_fd(const VhostInflight& description, common::FdRef file);
  // Fails unless the reply is the description that rust-vmm's front-ends wait for.
  void set_log_base(const VhostLog& description, common::FdRef file);
  // `request` is SET_VRING_KICK, CALL or ERR. An invalid `fd` sends the NOFD flag.
  void set_vring_fd(VhostRequest request, std::uint32_t index, common::FdRef fd);

  [[nodiscard]] std::vector<std::byte> get_config(std::uint32_t offset, std::uint32_t size,
                                                  std::uint32_t flags = 0);
  void set_config(std::uint32_t offset, std::span<const std::byte> bytes, std::uint32_t flags = 0);

  // A request that is answered in order: what was sent before has been handled once it returns.
  void barrier() { (void)get_features(); }

 private:
  common::Fd socket_;
  bool acks_ = false;
  bool need_reply_on_gets_ = false;
};

// Any trivially copyable struct as the bytes of a payload.
template <typename T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) noexcept {
  return std::as_bytes(std::span(&value, 1));
}

// The payload of SET_MEM_TABLE and of ADD_MEM_REG / REM_MEM_REG.
[[nodiscard]] std::vector<std::byte> mem_table_payload(std::span<const VmRegion> regions);
[[nodiscard]] std::vector<std::byte> mem_reg_payload(const VmRegion& region);
// The payload of SET_CONFIG.
[[nodiscard]] std::vector<std::byte> config_payload(std::uint32_t offset,
                                                    std::span<const std::byte> bytes,
                                                    std::uint32_t flags = 0);

}  // namespace fakes
