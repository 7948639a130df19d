// broker/session/vhost_wire.h: messages as QEMU's docs/interop/vhost-user.rst lays them out.
//
// Not trusted: everything in here came from a VMM. "All numbers are in the machine native byte
// order", so these are plain integers and not the little-endian types of the virtio chapters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace session {

// "Front-end message types".
enum class Request : std::uint32_t {
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
  kCreateCryptoSession = 26,
  kCloseCryptoSession = 27,
  kPostcopyAdvise = 28,
  kPostcopyListen = 29,
  kPostcopyEnd = 30,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kGpuSetSocket = 33,
  kResetDevice = 34,
  kVringKick = 35,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
  kSetStatus = 39,
  kGetStatus = 40,
  kGetSharedObject = 41,
  kSetDeviceStateFd = 42,
  kCheckDeviceState = 43,
  kGetShmemConfig = 44,
};

// "Back-end message types": the one we send.
inline constexpr std::uint32_t kBackendConfigChange = 2;

struct Header {
  std::uint32_t request;
  std::uint32_t flags;
  std::uint32_t size;  // Of the payload that follows.
};
static_assert(sizeof(Header) == 12);

inline constexpr std::uint32_t kFlagVersionMask = 0x3;
inline constexpr std::uint32_t kFlagVersion = 0x1;
inline constexpr std::uint32_t kFlagReply = 0x4;
inline constexpr std::uint32_t kFlagNeedReply = 0x8;

// Protocol feature bits, as masks.
inline constexpr std::uint64_t kProtocolMq = 1ULL << 0;
inline constexpr std::uint64_t kProtocolLogShmfd = 1ULL << 1;
inline constexpr std::uint64_t kProtocolRarp = 1ULL << 2;
inline constexpr std::uint64_t kProtocolReplyAck = 1ULL << 3;
inline constexpr std::uint64_t kProtocolMtu = 1ULL << 4;
inline constexpr std::uint64_t kProtocolBackendReq = 1ULL << 5;
inline constexpr std::uint64_t kProtocolCrossEndian = 1ULL << 6;
inline constexpr std::uint64_t kProtocolCryptoSession = 1ULL << 7;
inline constexpr std::uint64_t kProtocolPagefault = 1ULL << 8;
inline constexpr std::uint64_t kProtocolConfig = 1ULL << 9;
inline constexpr std::uint64_t kProtocolBackendSendFd = 1ULL << 10;
inline constexpr std::uint64_t kProtocolHostNotifier = 1ULL << 11;
inline constexpr std::uint64_t kProtocolInflightShmfd = 1ULL << 12;
inline constexpr std::uint64_t kProtocolResetDevice = 1ULL << 13;
inline constexpr std::uint64_t kProtocolInbandNotifications = 1ULL << 14;
inline constexpr std::uint64_t kProtocolConfigureMemSlots = 1ULL << 15;
inline constexpr std::uint64_t kProtocolStatus = 1ULL << 16;
inline constexpr std::uint64_t kProtocolXenMmap = 1ULL << 17;
inline constexpr std::uint64_t kProtocolSharedObject = 1ULL << 18;
inline constexpr std::uint64_t kProtocolDeviceState = 1ULL << 19;
inline constexpr std::uint64_t kProtocolGetVringBaseInflight = 1ULL << 20;
inline constexpr std::uint64_t kProtocolShmem = 1ULL << 22;

struct VringState {
  std::uint32_t index;
  std::uint32_t num;
};
static_assert(sizeof(VringState) == 8);

struct VringAddr {
  std::uint32_t index;
  std::uint32_t flags;  // dirty_log_wire.h: kVringLog.
  std::uint64_t desc;   // All three in the VMM's address space.
  std::uint64_t used;
  std::uint64_t avail;
  std::uint64_t log;  // Where the migration's log has the used ring: guest-physical.
};
static_assert(sizeof(VringAddr) == 40);

// SET_VRING_KICK, CALL and ERR: the index in bits 0-7; bit 8 says that no descriptor comes.
inline constexpr std::uint64_t kVringIndexMask = 0xff;
inline constexpr std::uint64_t kVringNoFd = 0x100;

struct MemoryRegion {
  std::uint64_t guest_addr;
  std::uint64_t bytes;
  std::uint64_t vmm_addr;
  std::uint64_t file_offset;
};
static_assert(sizeof(MemoryRegion) == 32);

struct MemoryTableHead {
  std::uint32_t count;
  std::uint32_t padding;
};
static_assert(sizeof(MemoryTableHead) == 8);

struct SingleRegion {
  std::uint64_t padding;
  MemoryRegion region;
};
static_assert(sizeof(SingleRegion) == 40);

struct ConfigHead {
  std::uint32_t offset;
  std::uint32_t size;
  std::uint32_t flags;
};
static_assert(sizeof(ConfigHead) == 12);

// "Inflight description". Its 4 bytes of padding are not in the specification, but in C.
struct InflightDescription {
  std::uint64_t mmap_bytes;
  std::uint64_t mmap_offset;
  std::uint16_t queues;
  std::uint16_t queue_size;
  std::uint32_t padding;
};
static_assert(sizeof(InflightDescription) == 24);

// "Log description".
struct LogDescription {
  std::uint64_t mmap_bytes;
  std::uint64_t mmap_offset;
};
static_assert(sizeof(LogDescription) == 16);

// "Device state transfer parameters".
struct DeviceStateTransfer {
  std::uint32_t direction;
  std::uint32_t phase;
};
static_assert(sizeof(DeviceStateTransfer) == 8);

// SET_DEVICE_STATE_FD's reply: bits 0-7 an error, bit 8 that no descriptor comes, and the
// front-end's own is used.
inline constexpr std::uint64_t kDeviceStateSameFd = 0x100;
inline constexpr std::uint64_t kDeviceStateRefused = 0x101;

// Regions in one SET_MEM_TABLE: the specification's floor is 8, rust-vmm front-ends send up to 32.
inline constexpr std::uint32_t kTableRegionsMax = 32;

// The longest configuration space that a front-end may ask for at once: rust-vmm allows 4 KiB.
inline constexpr std::uint32_t kConfigRequestMax = 4096;
inline constexpr std::size_t kPayloadBytesMax = sizeof(ConfigHead) + kConfigRequestMax;
static_assert(kPayloadBytesMax >=
              sizeof(MemoryTableHead) + kTableRegionsMax * sizeof(MemoryRegion));

}  // namespace session
