// What the broker says to its operator about events, faults and deaths.
// Long because every sentence has its place here, one beside the other.
#include "broker/event_text.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstring>
#include <iterator>
#include <span>

#include "broker/text.h"
#include "common/ipc/session_broker.h"
#include "common/layers.h"
#include "common/virtqueue_wire.h"

namespace broker {
namespace {

using common::ipc::EventCode;
using common::ipc::QueueOutcome;
using common::ipc::SessionExit;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;

// --- the sentences -------------------------------------------------------------------------------

// In a sentence, {0} is the first number in decimal, and
//   {0:x} in hexadecimal    {0:r} as a request       {0:e} as an errno     {0:p} as a part of a
//   ring {0:t} as a file type    {0:f} as a WorkerFault   {0:o} as an outcome   {0:l} as a layer
//   {0:d} how far ahead of {1} it is, modulo 2^16    {0:h} what to do about these feature bits
//   {0:s} as a step of making an engine    {share} how to share the guest's memory
//   {0:i} as a field of an in-flight region          {0:w} as on or off

struct EventSentence {
  EventCode code;
  Level level;
  std::string_view text;
};

constexpr EventSentence kEventSentences[] = {
    // Violations: the session ends.
    {EventCode::kBadVersion, Level::kError,
     "{0:r} came with flags {1:x}, which no vhost-user request of version 1 has; connect a VMM's "
     "vhost-user device to this socket, nothing else"},
    {EventCode::kUnknownRequest, Level::kError,
     "the front-end sent {0:r}, which is not known here"},
    {EventCode::kPayloadSize, Level::kError,
     "{0:r} came with {1} bytes of payload, not what belongs to it ({2}; 0: it varies)"},
    {EventCode::kTooManyFds, Level::kError,
     "{0:r} came with {1} descriptors, and at most {2} belong to it"},
    {EventCode::kTooFewFds, Level::kError,
     "{0:r} came with {1} descriptors, and at least {2} belong to it"},
    {EventCode::kFdsTruncated, Level::kError,
     "{0:r} came with more descriptors than any message may carry"},
    {EventCode::kClosedMidMessage, Level::kError,
     "the VMM closed the connection in the middle of {0:r}: {1} of {2} bytes came"},
    {EventCode::kBadQueueIndex, Level::kError,
     "{0:r} names queue {1}, and the device has {2}; raise --num-queues, or give the VMM's device "
     "fewer queues (QEMU: num-queues={2} of a disk, queues=PAIRS of a network card)"},
    {EventCode::kBadQueueSize, Level::kError,
     "{0:r} gives queue {1} {2} entries; it must be a power of two, unless its ring is packed, and "
     "no more than --queue-size (QEMU: queue-size=..., crosvm: max-queue-size=...)"},
    {EventCode::kBadVringBase, Level::kError,
     "{0:r} gives queue {1} the base {2:x}, which is no place in it: a split ring has 16 bits, "
     "and the indices of a packed ring are less than its size"},
    {EventCode::kBadFeatures, Level::kError,
     "{0:r} acknowledges virtio features that were not offered: {1:x}{1:h}"},
    {EventCode::kBadProtocolFeatures, Level::kError,
     "{0:r} acknowledges protocol features that were not offered: {1:x}"},
    {EventCode::kBadFdType, Level::kError,
     "{0:r} (queue or region {1}) came with {2:t}, which cannot be used for that"},
    {EventCode::kBadConfigRange, Level::kError,
     "{0:r} asks for {2} bytes at offset {1}, outside the configuration space"},
    {EventCode::kConfigNotWritable, Level::kWarn,  // Refused; the session goes on.
     "{0:r} writes {2} bytes at offset {1} of the configuration space, which may not be changed"},
    {EventCode::kRegionCount, Level::kError,
     "{0:r} lists {1} memory regions and came with {2} descriptors, which do not go together; the "
     "guest's memory must be shared: {share}"},
    {EventCode::kRegionOverlaps, Level::kError,
     "{0:r}: the memory region at {1:x} of {2} bytes overlaps another"},
    {EventCode::kRegionWraps, Level::kError,
     "{0:r}: the memory region at {1:x} of {2} bytes goes past the end of the address space"},
    {EventCode::kRegionEmpty, Level::kError, "{0:r}: the memory region at {1:x} is empty"},
    {EventCode::kRegionBeyondFile, Level::kError,
     "{0:r}: a memory region ends at byte {1} of a file that has {2}; the file behind the guest's "
     "memory must be as large as that memory"},
    {EventCode::kRegionNotFound, Level::kError,
     "{0:r}: there is no memory region at {1:x} of {2} bytes to take away"},
    {EventCode::kRegionTooMany, Level::kError,
     "{0:r} would make {1} memory regions, which is too many; give the guest fewer memory devices"},
    {EventCode::kNoMemory, Level::kError,
     "queue {0} starts, and the guest's memory is not shared; {share}"},
    {EventCode::kRingUnmapped, Level::kError,
     "the {1:p} of queue {0} is at {2:x}, which is no shared memory; all of the guest's memory "
     "must be shared: {share}"},
    {EventCode::kRingMisaligned, Level::kError,
     "the {1:p} of queue {0} is at {2:x}, which is not aligned as virtio wants it"},
    {EventCode::kNotNegotiated, Level::kError,
     "{0:r} needs a protocol feature that the front-end has not acknowledged"},
    {EventCode::kReplyFailed, Level::kError, "{0:r} could not be answered: {1:e}"},
    {EventCode::kBadStatus, Level::kError, "{0:r} sets a device status that is none: {1:x}"},
    {EventCode::kBadInflight, Level::kError,
     "{0:r} describes an in-flight region that cannot be: {1:i} is {2}; it must be what "
     "GET_INFLIGHT_FD answered"},
    {EventCode::kLogBeyondFile, Level::kError,
     "SET_LOG_BASE describes a log of {1} bytes at offset {0} of a file that has {2}; the "
     "migration "
     "log must lie in the file that comes with it"},
    {EventCode::kLogTooSmall, Level::kError,
     "the migration log has {2} bytes, and queue {0} needs {1}, one bit for each 4096 bytes of "
     "guest-physical memory; the VMM must give a larger one before it adds memory"},

    // Information: the session goes on.
    {EventCode::kConnected, Level::kInfo,
     "the front-end acknowledged features {0:x} and protocol features {1:x}"},
    // The broker's own line about the worker says more (describe_fault): these are for debugging.
    {EventCode::kQueueFault, Level::kDebug, "queue {0} is stopped: {1:f}"},
    {EventCode::kQueueDied, Level::kDebug, "queue {0} {1:o}"},
    {EventCode::kQueueNotStarted, Level::kDebug, "queue {0} was not started: {1:f}"},
    {EventCode::kDeviceReset, Level::kInfo, "the front-end reset the device"},
    {EventCode::kIgnoredRequest, Level::kDebug, "{0:r} has no effect here"},
    {EventCode::kRefusedRequest, Level::kInfo, "{0:r} was refused: {1:e}"},
    {EventCode::kConfigNotTold, Level::kWarn,
     "the VMM cannot be told that the disk has another size, or the card another link state, since "
     "its front-end has no channel for that; have it read the configuration again (Firecracker: "
     "PATCH /drives), or restart the VM"},
    {EventCode::kDirtyLog, Level::kInfo, "live migration: the log of written pages is {0:w}"},
    {EventCode::kEventsDropped, Level::kWarn,
     "{0} more messages of this session were left out, to keep the log readable"},
};

struct FaultSentence {
  WorkerFault fault;
  std::string_view text;
  std::string_view details;  // With the two numbers; may be empty.
};

constexpr FaultSentence kFaultSentences[] = {
    {WorkerFault::kNone, "no reason was given", ""},

    // The guest's. Its driver is at fault, or somebody in there tries something.
    {WorkerFault::kAvailJump, "the guest's ring is broken: its avail index jumped",
     " to {0}, which is {0:d} ahead of ours ({1}) and more than the ring is long"},
    {WorkerFault::kHeadOutsideTable,
     "the guest's ring is broken: a chain starts outside the descriptor table", " (at {0} of {1})"},
    {WorkerFault::kIndexOutsideTable,
     "the guest's ring is broken: a descriptor leads out of its table", " (to {0} of {1})"},
    {WorkerFault::kChainTooLong,
     "the guest's ring is broken: a descriptor chain loops or is too long",
     " (head {0}, at most {1})"},
    {WorkerFault::kUnknownDescFlags,
     "the guest's ring is broken: a descriptor has flags that do not exist", " ({0:x}, head {1})"},
    {WorkerFault::kIndirectNotNegotiated,
     "the guest's ring is broken: an indirect descriptor, though that was not negotiated",
     " (head {0})"},
    {WorkerFault::kNestedIndirect,
     "the guest's ring is broken: an indirect table inside an indirect table", " (head {0})"},
    {WorkerFault::kIndirectTableSize,
     "the guest's ring is broken: an indirect table of an impossible size",
     " ({0} bytes, head {1})"},
    {WorkerFault::kIndirectAndNext,
     "the guest's ring is broken: a descriptor is indirect and has a next one", " (head {0})"},
    {WorkerFault::kReadableAfterWritable,
     "the guest's ring is broken: a readable buffer after a writable one", " (head {0})"},
    {WorkerFault::kUnmappedBuffer, "the guest's ring is broken: a buffer outside its memory",
     " ({0:x}, {1} bytes)"},
    {WorkerFault::kTotalOverflow,
     "the guest's ring is broken: the buffers of a chain are longer than can be counted",
     " (head {0})"},
    {WorkerFault::kNoStatusByte,
     "the guest's request is broken: it has no byte to write the status to", " (head {0})"},
    {WorkerFault::kRequestTooShort,
     "the guest's request is broken: it is shorter than a request header",
     " ({0} bytes, head {1})"},
    {WorkerFault::kWrongDirection,
     "the guest's ring is broken: a buffer that cannot be received into, or not sent from",
     " (head {0})"},
    {WorkerFault::kBufferTooSmall,
     "the guest's ring is broken: a receive buffer that is shorter than the packet header",
     " (head {0}, {1} bytes)"},
    {WorkerFault::kChainNotAvailable,
     "the guest's ring is broken: a chain of its packed ring goes on where nothing was offered",
     " (descriptor {0}, flags {1:x})"},

    // The session's.
    {WorkerFault::kBadMessage, "the session sent what it should not have",
     " (kind {0:x}, {1} bytes)"},
    {WorkerFault::kRingUnmapped, "the ring does not lie in the memory that the VMM has shared",
     " ({0:p} at {1:x})"},
    {WorkerFault::kKickUnreadable, "the VMM gave a kick descriptor that is no eventfd", ""},
    {WorkerFault::kMapFailed,
     "the guest's memory could not be mapped; the file behind it must be shared and large enough",
     " ({1} bytes at {0:x})"},
    {WorkerFault::kInflightUnmapped,
     "the VMM gave an in-flight file that could not be mapped; it must be shared memory, writable "
     "and large enough",
     " ({1} bytes at offset {0:x})"},
    {WorkerFault::kInflightBroken,
     "the in-flight region that the VMM gave back is not of this ring, or damaged; reset the "
     "device in the guest or restart the VMM",
     " (field {0}, value {1})"},

    {WorkerFault::kLogUnmapped,
     "the VMM gave a migration log that could not be mapped; it must be shared memory, writable "
     "and large enough",
     " ({1} bytes at offset {0:x})"},
    {WorkerFault::kLogTooSmall,
     "the VMM gave a migration log that has no room for all of the guest's memory",
     " ({1} bytes of {0})"},

    // The host's, or ours.
    {WorkerFault::kEngine, "the engine failed", " ({0:s})"},
    {WorkerFault::kPosture,
     "a layer of the jail is missing and --require-posture=strict asks for it", " ({0:l})"},
    {WorkerFault::kJail, "the jail could not be closed", " (step {0})"},
    {WorkerFault::kCallUnwritable, "the VMM gave a call descriptor that is no eventfd", ""},
    {WorkerFault::kTapGone,
     "the tap has been removed; make it again, restart this back-end, and reset the guest's card",
     ""},
};

constexpr std::string_view kShareMemory =
    "start QEMU with -object memory-backend-memfd,id=mem,size=<RAM>,share=on -machine "
    "memory-backend=mem; Cloud Hypervisor with --memory shared=on; libvirt with <memoryBacking>"
    "<source type='memfd'/><access mode='shared'/></memoryBacking>";

// Indexed by request id (vhost-user, "Front-end message types").
constexpr std::string_view kRequestNames[] = {
    "",
    "GET_FEATURES",
    "SET_FEATURES",
    "SET_OWNER",
    "RESET_OWNER",
    "SET_MEM_TABLE",
    "SET_LOG_BASE",
    "SET_LOG_FD",
    "SET_VRING_NUM",
    "SET_VRING_ADDR",
    "SET_VRING_BASE",
    "GET_VRING_BASE",
    "SET_VRING_KICK",
    "SET_VRING_CALL",
    "SET_VRING_ERR",
    "GET_PROTOCOL_FEATURES",
    "SET_PROTOCOL_FEATURES",
    "GET_QUEUE_NUM",
    "SET_VRING_ENABLE",
    "SEND_RARP",
    "NET_SET_MTU",
    "SET_BACKEND_REQ_FD",
    "IOTLB_MSG",
    "SET_VRING_ENDIAN",
    "GET_CONFIG",
    "SET_CONFIG",
    "CREATE_CRYPTO_SESSION",
    "CLOSE_CRYPTO_SESSION",
    "POSTCOPY_ADVISE",
    "POSTCOPY_LISTEN",
    "POSTCOPY_END",
    "GET_INFLIGHT_FD",
    "SET_INFLIGHT_FD",
    "GPU_SET_SOCKET",
    "RESET_DEVICE",
    "VRING_KICK",
    "GET_MAX_MEM_SLOTS",
    "ADD_MEM_REG",
    "REM_MEM_REG",
    "SET_STATUS",
    "GET_STATUS",
    "GET_SHARED_OBJECT",
    "SET_DEVICE_STATE_FD",
    "CHECK_DEVICE_STATE",
    "GET_SHMEM_CONFIG",
};

// --- numbers to words ----------------------------------------------------------------------------

std::string print_number(const char* format, std::uint64_t number) {
  char text[32];
  std::snprintf(text, sizeof(text), format, static_cast<unsigned long long>(number));
  return text;
}

std::string request_in_words(std::uint64_t request) {
  return request == 0 ? "a message header" : request_name(request);
}

std::string ring_part(std::uint64_t part) {
  constexpr std::string_view kParts[] = {"descriptor table", "avail ring", "used ring"};
  if (part < std::size(kParts)) return std::string(kParts[part]);
  return "ring part " + std::to_string(part);
}

std::string file_type(std::uint64_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFIFO:
      return "a pipe";
    case S_IFSOCK:
      return "a socket";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    case S_IFREG:
      return "a regular file";
    case S_IFLNK:
      return "a symbolic link";
    case 0:  // Most of what has no name in the file system.
      return "an anonymous descriptor (an eventfd or its like)";
    default:
      return "a descriptor of mode " + print_number("0%llo", mode);
  }
}

std::string outcome_in_words(std::uint64_t outcome) {
  switch (static_cast<QueueOutcome>(outcome)) {
    case QueueOutcome::kStopped:
      return "was stopped";
    case QueueOutcome::kGuestFault:
      return "was stopped: the guest broke its ring";
    case QueueOutcome::kDied:
      return "has lost its worker";
    case QueueOutcome::kNotStarted:
      return "could not be started";
    case QueueOutcome::kGaveUp:
      return "has lost its worker for good: reset the device in the guest, or restart the VM";
  }
  return "ended for a reason this broker does not know (" + std::to_string(outcome) + ")";
}

// worker/start.cpp: EngineStep.
std::string engine_step(std::uint64_t step) {
  constexpr std::string_view kSteps[] = {
      "while it served", "setting up its io_uring",
      "setting up Linux AIO; if fs.aio-max-nr is used up, raise it: sysctl fs.aio-max-nr",
      "putting its descriptors into their places", "mapping the memory of its rate limits"};
  if (step < std::size(kSteps)) return std::string(kSteps[step]);
  return "step " + std::to_string(step);
}

std::string_view inflight_field(std::uint64_t field) {
  constexpr std::string_view kFields[] = {"its number of queues", "its queue size", "its size",
                                          "its offset"};
  return field < std::size(kFields) ? kFields[field] : "a number of it";
}

std::string layer_in_words(std::uint64_t layer) {
  if (layer >= common::kLayerCount) return "layer " + std::to_string(layer);
  return std::string(common::layer_name(static_cast<common::Layer>(layer)));
}

// What is an os_errno here came from a jailed process: any number at all.
std::string errno_in_words(std::uint64_t os_errno) {
  constexpr std::uint64_t kErrnoMax = 4095;
  if (os_errno > kErrnoMax) return "errno " + std::to_string(os_errno);
  return errno_text(static_cast<int>(os_errno));
}

// Features that users switch on in the VMM, and how to switch them off there.
std::string feature_hint(std::uint64_t bits) {
  std::string hint;
  if ((bits & common::kFeatureRingPacked) != 0)
    hint += "; packed rings: packed=off, or --packed-rings=on here";
  if ((bits & common::kFeatureAccessPlatform) != 0) hint += "; an IOMMU: iommu_platform=off";
  if ((bits & common::kFeatureLogAll) != 0) hint += "; live migration is not possible";
  return hint;
}

const FaultSentence* find_fault(std::uint64_t fault) {
  for (const FaultSentence& sentence : kFaultSentences) {
    if (static_cast<std::uint64_t>(sentence.fault) == fault) return &sentence;
  }
  return nullptr;
}

std::string fault_in_words(std::uint64_t fault) {
  const FaultSentence* sentence = find_fault(fault);
  if (sentence != nullptr) return std::string(sentence->text);
  return "for a reason this broker does not know (" + std::to_string(fault) + ")";
}

// --- filling in ----------------------------------------------------------------------------------

std::string number_as(char how, std::uint64_t number, std::uint64_t next) {
  switch (how) {
    case 'x':
      return print_number("0x%llx", number);
    case 'r':
      return request_in_words(number);
    case 'e':
      return errno_in_words(number);
    case 'p':
      return ring_part(number);
    case 'w':
      return number != 0 ? "on" : "off";
    case 'i':
      return std::string(inflight_field(number));
    case 't':
      return file_type(number);
    case 'f':
      return fault_in_words(number);
    case 'o':
      return outcome_in_words(number);
    case 's':
      return engine_step(number);
    case 'l':
      return layer_in_words(number);
    case 'd':
      return std::to_string(static_cast<std::uint16_t>(number - next));
    case 'h':
      return feature_hint(number);
    default:
      return std::to_string(number);
  }
}

// `sentence` is one of the above, so what is between braces is well-formed.
std::string fill_in(std::string_view sentence, std::span<const std::uint64_t> numbers) {
  std::string out;
  while (!sentence.empty()) {
    const std::size_t open = sentence.find('{');
    out += sentence.substr(0, open);
    if (open == std::string_view::npos) break;
    const std::size_t close = sentence.find('}', open);
    const std::string_view field = sentence.substr(open + 1, close - open - 1);
    sentence.remove_prefix(close + 1);
    if (field == "share") {
      out += kShareMemory;
      continue;
    }
    const auto index = static_cast<std::size_t>(field[0] - '0');
    const std::uint64_t next = index + 1 < numbers.size() ? numbers[index + 1] : 0;
    out += number_as(field.size() == 3 ? field[2] : ' ', numbers[index], next);
  }
  return out;
}

// --- ends of processes ---------------------------------------------------------------------------

std::string describe_exit(int code) {
  if (code == static_cast<int>(WorkerExit::kStopped)) return "ended as asked";
  if (code == static_cast<int>(WorkerExit::kGuestFault)) return "ended: the guest broke its ring";
  if (code == static_cast<int>(WorkerExit::kStartRefused)) {
    return "refused to start with what it was given";
  }
  if (code == static_cast<int>(WorkerExit::kHostFault)) return "ended: the host failed it";
  if (code == static_cast<int>(SessionExit::kViolation)) {
    return "ended: the front-end broke the protocol";
  }
  if (code == static_cast<int>(SessionExit::kBrokerGone)) return "ended: it lost the broker";
  if (code == static_cast<int>(SessionExit::kPosture)) {
    return "ended: a layer of the jail is missing and --require-posture=strict asks for it";
  }
  if (code == static_cast<int>(SessionExit::kHostFault)) return "ended: it could not be set up";
  return "ended with exit code " + std::to_string(code);
}

std::string describe_signal(int signal) {
  switch (signal) {
    case SIGSYS:
      return "killed by seccomp: a system call its list does not have";
    case SIGBUS:
      return "killed by SIGBUS: guest memory went away (the VMM made its file smaller)";
    case SIGILL:
    case SIGTRAP:
      return "stopped itself: a check of its own failed; please report this as a bug of Bulkhead";
    case SIGSEGV:
      return "killed by SIGSEGV: it crashed; please report this as a bug of Bulkhead";
    case SIGABRT:
      return "aborted; please report this as a bug of Bulkhead";
    case SIGKILL:
      return "killed by SIGKILL: the broker stopped it, the host ran out of memory, or somebody "
             "killed it";
    case SIGXFSZ:
      return "killed by SIGXFSZ: it tried to write beyond the end of the disk";
    default:
      break;
  }
  const char* name = ::sigabbrev_np(signal);
  return name != nullptr ? "killed by SIG" + std::string(name)
                         : "killed by signal " + std::to_string(signal);
}

}  // namespace

std::string request_name(std::uint64_t request) {
  if (request == 0 || request >= std::size(kRequestNames)) {
    return "request " + std::to_string(request);
  }
  return std::string(kRequestNames[request]);
}

EventText describe_event(EventCode code, const std::array<std::uint64_t, 3>& numbers) {
  for (const EventSentence& sentence : kEventSentences) {
    if (sentence.code == code) return {sentence.level, fill_in(sentence.text, numbers)};
  }
  const std::array<std::uint64_t, 4> all = {static_cast<std::uint64_t>(code), numbers[0],
                                            numbers[1], numbers[2]};
  return {Level::kWarn,
          fill_in("the session reported {0} ({1:x}, {2:x}, {3:x}), which this broker does not know",
                  all)};
}

std::string describe_fault(WorkerFault fault, const std::array<std::uint64_t, 2>& detail,
                           int os_errno) {
  std::string text = fault_in_words(static_cast<std::uint64_t>(fault));
  const FaultSentence* sentence = find_fault(static_cast<std::uint64_t>(fault));
  text += fill_in(sentence != nullptr ? sentence->details : " ({0:x}, {1:x})", detail);
  if (os_errno != 0) text += ": " + errno_in_words(static_cast<std::uint32_t>(os_errno));
  return text;
}

std::string describe_death(int si_code, int status) {
  if (si_code == CLD_EXITED) return describe_exit(status);
  if (si_code == CLD_DUMPED) return describe_signal(status) + " (core dumped)";
  return describe_signal(status);
}

}  // namespace broker
