#include "broker/session/vhost_table.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "broker/session/broker_link.h"
#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

constexpr Range exactly(std::uint32_t bytes) noexcept { return {bytes, bytes}; }

constexpr Range kNothing = exactly(0);
constexpr Range kU64 = exactly(8);
constexpr Range kState = exactly(sizeof(VringState));
constexpr Range kAddresses = exactly(sizeof(VringAddr));
constexpr Range kRegion = exactly(sizeof(SingleRegion));
constexpr Range kTable = {sizeof(MemoryTableHead),
                          sizeof(MemoryTableHead) + kTableRegionsMax * sizeof(MemoryRegion)};
constexpr Range kInflight = {0, sizeof(InflightDescription)};
constexpr Range kConfig = {sizeof(ConfigHead), kPayloadBytesMax};
constexpr Range kAnything = {0, kPayloadBytesMax};
constexpr Range kTransfer = exactly(sizeof(DeviceStateTransfer));
constexpr Range kCrypto = {8, kPayloadBytesMax};

constexpr Range kNoFds = {0, 0};
constexpr Range kMaybeFd = {0, 1};
constexpr Range kOneFd = {1, 1};
constexpr Range kManyFds = {0, common::ipc::kFdListMax};

using enum Request;
using enum Refusal;

// The payload of what we refuse is not looked at, so its sizes are generous: peers differ there.
constexpr Row kRows[] = {
    // request, name, payload, descriptors, needs, refusal, handler
    {kGetFeatures, "GET_FEATURES", kNothing, kNoFds, 0, kImpossible, get_features},
    {kSetFeatures, "SET_FEATURES", kU64, kNoFds, 0, kByAck, set_features},
    {kSetOwner, "SET_OWNER", kNothing, kNoFds, 0, kByAck, set_owner},
    {kResetOwner, "RESET_OWNER", kNothing, kNoFds, 0, kByAck, reset_owner},
    {kSetMemTable, "SET_MEM_TABLE", kTable, kManyFds, 0, kByAck, set_mem_table},
    {kSetLogBase, "SET_LOG_BASE", kAnything, kMaybeFd, kProtocolLogShmfd, kByAck, set_log_base},
    {kSetLogFd, "SET_LOG_FD", kAnything, kMaybeFd, kProtocolLogShmfd, kByAck, set_log_fd},
    {kSetVringNum, "SET_VRING_NUM", kState, kNoFds, 0, kByAck, set_vring_num},
    {kSetVringAddr, "SET_VRING_ADDR", kAddresses, kNoFds, 0, kByAck, set_vring_addr},
    {kSetVringBase, "SET_VRING_BASE", kState, kNoFds, 0, kByAck, set_vring_base},
    {kGetVringBase, "GET_VRING_BASE", kState, kNoFds, 0, kImpossible, get_vring_base},
    {kSetVringKick, "SET_VRING_KICK", kU64, kMaybeFd, 0, kByAck, set_vring_kick},
    {kSetVringCall, "SET_VRING_CALL", kU64, kMaybeFd, 0, kByAck, set_vring_call},
    {kSetVringErr, "SET_VRING_ERR", kU64, kMaybeFd, 0, kByAck, set_vring_err},
    {kGetProtocolFeatures, "GET_PROTOCOL_FEATURES", kNothing, kNoFds, 0, kImpossible,
     get_protocol_features},
    {kSetProtocolFeatures, "SET_PROTOCOL_FEATURES", kU64, kNoFds, 0, kByAck, set_protocol_features},
    {kGetQueueNum, "GET_QUEUE_NUM", kNothing, kNoFds, 0, kImpossible, get_queue_num},
    {kSetVringEnable, "SET_VRING_ENABLE", kState, kNoFds, 0, kByAck, set_vring_enable},
    {kSendRarp, "SEND_RARP", kU64, kNoFds, kProtocolRarp, kByAck, send_rarp},
    {kNetSetMtu, "NET_SET_MTU", kU64, kNoFds, kProtocolMtu, kByAck, net_set_mtu},
    {kSetBackendReqFd, "SET_BACKEND_REQ_FD", kNothing, kOneFd, kProtocolBackendReq, kByAck,
     set_backend_req_fd},
    {kIotlbMsg, "IOTLB_MSG", kAnything, kNoFds, 0, kU64Error, nullptr},
    {kSetVringEndian, "SET_VRING_ENDIAN", kState, kNoFds, kProtocolCrossEndian, kByAck, nullptr},
    {kGetConfig, "GET_CONFIG", kConfig, kNoFds, kProtocolConfig, kEmpty, get_config},
    {kSetConfig, "SET_CONFIG", kConfig, kNoFds, kProtocolConfig, kByAck, set_config},
    {kCreateCryptoSession, "CREATE_CRYPTO_SESSION", kCrypto, kNoFds, kProtocolCryptoSession,
     kNegativeU64, nullptr},
    {kCloseCryptoSession, "CLOSE_CRYPTO_SESSION", kU64, kNoFds, kProtocolCryptoSession, kByAck,
     nullptr},
    {kPostcopyAdvise, "POSTCOPY_ADVISE", kNothing, kNoFds, kProtocolPagefault, kEmpty, nullptr},
    {kPostcopyListen, "POSTCOPY_LISTEN", kNothing, kNoFds, kProtocolPagefault, kByAck, nullptr},
    {kPostcopyEnd, "POSTCOPY_END", kNothing, kNoFds, kProtocolPagefault, kU64Error, nullptr},
    {kGetInflightFd, "GET_INFLIGHT_FD", kInflight, kNoFds, kProtocolInflightShmfd, kZeroes,
     get_inflight_fd},
    {kSetInflightFd, "SET_INFLIGHT_FD", kInflight, kMaybeFd, kProtocolInflightShmfd, kByAck,
     set_inflight_fd},
    {kGpuSetSocket, "GPU_SET_SOCKET", kNothing, kMaybeFd, 0, kByAck, nullptr},
    {kResetDevice, "RESET_DEVICE", kNothing, kNoFds, kProtocolResetDevice, kByAck, reset_device},
    {kVringKick, "VRING_KICK", kState, kNoFds, kProtocolInbandNotifications, kByAck, nullptr},
    {kGetMaxMemSlots, "GET_MAX_MEM_SLOTS", kNothing, kNoFds, kProtocolConfigureMemSlots,
     kImpossible, get_max_mem_slots},
    {kAddMemReg, "ADD_MEM_REG", kRegion, kMaybeFd, kProtocolConfigureMemSlots, kByAck, add_mem_reg},
    {kRemMemReg, "REM_MEM_REG", kRegion, kMaybeFd, kProtocolConfigureMemSlots, kByAck, rem_mem_reg},
    {kSetStatus, "SET_STATUS", kU64, kNoFds, kProtocolStatus, kByAck, set_status},
    {kGetStatus, "GET_STATUS", kNothing, kNoFds, kProtocolStatus, kImpossible, get_status},
    {kGetSharedObject, "GET_SHARED_OBJECT", kAnything, kNoFds, kProtocolSharedObject, kEmpty,
     nullptr},
    {kSetDeviceStateFd, "SET_DEVICE_STATE_FD", kTransfer, kMaybeFd, kProtocolDeviceState,
     kDeviceState, set_device_state_fd},
    {kCheckDeviceState, "CHECK_DEVICE_STATE", kNothing, kNoFds, kProtocolDeviceState, kU64Error,
     check_device_state},
    {kGetShmemConfig, "GET_SHMEM_CONFIG", kNothing, kNoFds, kProtocolShmem, kZeroes, nullptr},
};
constexpr std::uint32_t kRequestsCount = sizeof(kRows) / sizeof(kRows[0]);

// Requests are numbered from 1 without a gap, so the number is the place.
constexpr bool rows_are_in_order() noexcept {
  for (std::uint32_t i = 0; i < kRequestsCount; ++i) {
    if (static_cast<std::uint32_t>(kRows[i].request) != i + 1) return false;
  }
  return true;
}
static_assert(rows_are_in_order());

// GET_SHMEM_CONFIG's reply: u32 regions, u32 padding, u64 sizes[256].
constexpr std::size_t kShmemConfigBytes = 8 + 256 * 8;

std::span<std::byte> zeroes(std::span<std::byte> room, std::size_t bytes) noexcept {
  std::fill_n(room.begin(), bytes, std::byte{0});
  return room.first(bytes);
}

// "No", in the words that the request's own reply has for it.
Answer refusal_body(Incoming& incoming) noexcept {
  constexpr int kWhy = EOPNOTSUPP;
  const std::uint64_t error = 1;
  switch (incoming.row.refusal) {
    case kByAck:
    case kImpossible:
      break;
    case kEmpty:
      return {.refusal_errno = kWhy};
    case kU64Error:
      return {.body = body_of(incoming, error).body, .refusal_errno = kWhy};
    case kDeviceState:
      return {.body = body_of(incoming, kDeviceStateRefused).body, .refusal_errno = kWhy};
    case kZeroes: {
      const bool shmem = incoming.row.request == Request::kGetShmemConfig;
      return {.body = zeroes(incoming.reply_room,
                             shmem ? kShmemConfigBytes : sizeof(InflightDescription)),
              .refusal_errno = kWhy};
    }
    case kNegativeU64: {
      // The session id is the payload's last field; the rest comes back as it was.
      const std::uint64_t negative = ~std::uint64_t{0};
      const auto last = incoming.payload.last(sizeof(negative));
      std::memcpy(last.data(), &negative, sizeof(negative));
      return {.body = incoming.payload, .refusal_errno = kWhy};
    }
  }
  return {.refusal_errno = kWhy};
}

// A front-end must not send this now. Where there is a way to say no, that is the answer. Where
// there is none, it would go on and believe that it was done: then the session ends.
Outcome<Answer> refuse(Incoming& incoming, bool acks_on) noexcept {
  const bool can_say_no = incoming.row.refusal == Refusal::kByAck
                              ? acks_on
                              : incoming.row.refusal != Refusal::kImpossible;
  if (!can_say_no) return violation(EventCode::kNotNegotiated, number_of(incoming));
  return refusal_body(incoming);
}

}  // namespace

const Row* find_row(std::uint32_t request) noexcept {
  return request >= 1 && request <= kRequestsCount ? &kRows[request - 1] : nullptr;
}

std::span<const Row> all_rows() noexcept { return kRows; }

Outcome<Answer> serve(Context& context, Incoming& incoming, bool acks_on) noexcept {
  const Row& row = incoming.row;
  const bool allowed = row.handler != nullptr && context.device.features.has_protocol(row.needs);
  const std::uint32_t failures = context.workers.failed_starts();
  TRY_LET(Answer answer, allowed ? row.handler(context, incoming) : refuse(incoming, acks_on));
  TRY(context.workers.settle());
  // It asked for a ring that could not be started: not done, then.
  if (context.workers.failed_starts() != failures) answer.refusal_errno = EIO;
  if (answer.refusal_errno != 0 && !answer.reported) {
    context.broker.report(EventCode::kRefusedRequest, number_of(incoming),
                          static_cast<std::uint64_t>(answer.refusal_errno));
  }
  return answer;
}

}  // namespace session
