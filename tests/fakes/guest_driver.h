// tests/fakes/guest_driver.h: the guest's half of a ring, honest or not.
//
// GuestRam is a guest's memory: private, or a memfd that a VMM's half of vhost-user can share.
// GuestDriver is the driver of one queue in it. add()/publish()/next_used() keep every rule of
// virtio 1.2, 2.7 or 2.8; the functions below "Not honest" break whichever one a test wants broken:
// those of a split ring here, those of a packed one in packed().
// One thread for one driver; several drivers may share one GuestRam once their buffers are there.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/addresses.h"
#include "common/fd.h"
#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/virtqueue_wire.h"
#include "tests/fakes/packed_driver.h"

namespace fakes {

class GuestRam {
 public:
  enum class Backing : std::uint8_t { kPrivate, kShared };
  static constexpr std::uint64_t kDefaultStart = 0x4000'0000;

  // One region, more with add_region(). Each lies between inaccessible pages, so that a read or
  // write beyond it is seen. Aborts where there is no memory: a test cannot go on.
  explicit GuestRam(std::uint64_t bytes = 16U << 20, Backing backing = Backing::kPrivate,
                    common::GuestAddr start = {kDefaultStart});
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;
  ~GuestRam();

  // In ascending order of `start`.
  void add_region(common::GuestAddr start, std::uint64_t bytes);

  // What a worker sees. Valid until the next add_region().
  [[nodiscard]] common::GuestMemory memory() const { return common::GuestMemory(regions_); }
  [[nodiscard]] std::span<const common::GuestRegion> regions() const { return regions_; }
  // The memfd of a shared region; offset 0 of it is the region's start.
  [[nodiscard]] common::FdRef file(std::size_t region = 0) const { return files_.at(region).ref(); }

  // Never freed. From the first region that has room.
  [[nodiscard]] common::GuestAddr alloc(std::uint64_t bytes, std::uint64_t alignment = 16);

  // Our view of [addr, addr + bytes), which must lie in one region.
  [[nodiscard]] std::span<std::byte> bytes(common::GuestAddr addr, std::uint64_t bytes);
  void fill(common::GuestAddr addr, std::uint64_t count, std::uint8_t value);
  template <typename T>
  void put(common::GuestAddr addr, const T& value) {
    std::memcpy(bytes(addr, sizeof(T)).data(), &value, sizeof(T));
  }
  template <typename T>
  [[nodiscard]] T get(common::GuestAddr addr) {
    T value;
    std::memcpy(&value, bytes(addr, sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  Backing backing_;
  std::vector<common::GuestRegion> regions_;
  std::vector<common::Fd> files_;
  std::vector<std::uint64_t> used_;  // Bytes handed out of each region.
};

struct Buffer {
  common::GuestAddr addr;
  std::uint32_t bytes = 0;
  bool writable = false;  // By the device.
};

struct Used {
  std::uint16_t head = 0;
  std::uint32_t written = 0;
};

class GuestDriver {
 public:
  struct Options {
    std::uint16_t queue_size = 128;
    bool event_idx = true;
    bool indirect = true;
    std::uint16_t first_index = 0;  // Where avail.idx and used.idx start.
    bool packed = false;
    common::PackedPlace first_place = {};  // Where a packed ring starts.
    std::uint16_t first_id = 0xfff0;       // And its buffer ids.
  };
  enum class Layout : std::uint8_t {
    kDirect,
    kIndirect,
    kMixed,  // The first descriptor in the ring's table, the rest in an indirect one; which a
             // packed ring does not allow (2.8.19), so that it has kIndirect.
  };

  // Takes the three parts of the ring from `ram`, zeroed.
  explicit GuestDriver(GuestRam& ram) : GuestDriver(ram, Options{}) {}
  GuestDriver(GuestRam& ram, const Options& options);

  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] common::GuestAddr desc_addr() const { return desc_; }
  [[nodiscard]] common::GuestAddr avail_addr() const { return avail_; }
  [[nodiscard]] common::GuestAddr used_addr() const { return used_; }
  // The bits of this queue: VERSION_1 and what the options say.
  [[nodiscard]] std::uint64_t ring_features() const;
  // For a worker: this ring, from the first index on, with `device_features` acknowledged as well.
  [[nodiscard]] common::ipc::RingStart ring_start(std::uint64_t device_features) const;

  // --- honest -----------------------------------------------------------------------------------
  // Builds a chain and puts its head into the avail ring. Nothing where descriptors have run out.
  // What stands for a chain of a packed ring is PackedDriver's token.
  [[nodiscard]] std::optional<std::uint16_t> add(std::span<const Buffer> buffers,
                                                 Layout layout = Layout::kDirect);
  // Shows the device what was added. True if it wants a kick for that.
  [[nodiscard]] bool publish();
  // The next answer, whose descriptors are free again.
  [[nodiscard]] std::optional<Used> next_used();
  // Asks for an interrupt with the next answer. True if one has come already: look again.
  [[nodiscard]] bool enable_calls();
  void disable_calls();
  // Asks for an interrupt once `answers` more have come (EVENT_IDX).
  void call_after(std::uint16_t answers);
  [[nodiscard]] std::uint32_t free_descriptors() const;
  [[nodiscard]] std::uint16_t avail_idx() const { return next_avail_; }

  [[nodiscard]] PackedDriver& packed() { return packed_; }

  // --- what the device wrote, of a split ring ---------------------------------------------------
  [[nodiscard]] std::uint16_t used_idx() const;
  [[nodiscard]] std::uint16_t used_flags() const;
  [[nodiscard]] std::uint16_t avail_event() const;

  // --- not honest -------------------------------------------------------------------------------
  void write_desc(std::uint32_t index, const common::WireDesc& desc);
  void write_desc_at(common::GuestAddr table, std::uint32_t index, const common::WireDesc& desc);
  // Puts any number into the next avail entry; publish() shows it.
  void offer(std::uint16_t head);
  // Stores avail.idx, release.
  void store_avail_idx(std::uint16_t value);
  void store_used_event(std::uint16_t value);
  void store_used_idx(std::uint16_t value);

 private:
  [[nodiscard]] std::uint16_t* word(common::GuestAddr part, std::uint64_t offset) const;
  [[nodiscard]] std::uint16_t take_desc();
  void write_chain(std::span<const Buffer> buffers, std::uint16_t first);
  [[nodiscard]] common::WireDesc indirect_desc(std::span<const Buffer> buffers, std::uint16_t head);
  [[nodiscard]] std::optional<std::uint16_t> add_packed(std::span<const Buffer> buffers,
                                                        Layout layout);

  GuestRam& ram_;
  Options options_;
  common::GuestAddr desc_, avail_, used_;
  std::vector<std::uint16_t> free_;
  struct InRing {
    std::vector<std::uint16_t> descriptors;
    common::GuestAddr table;  // Of an indirect chain; kept for the next one with this head.
    std::uint32_t table_entries = 0;
  };
  std::vector<InRing> chains_;  // By head.
  std::uint16_t next_avail_;
  std::uint16_t shown_avail_;
  std::uint16_t next_used_;
  PackedDriver packed_;
};

[[nodiscard]] common::WireDesc make_desc(common::GuestAddr addr, std::uint32_t bytes,
                                         std::uint16_t flags = 0, std::uint16_t next = 0);

}  // namespace fakes
