// tests/unit/worker/chain_model_test.cpp: every small descriptor table there is, read by the
// ChainReader and by a model that follows virtio 1.2, 2.7.4 and 2.7.5 clause by clause and in no
// hurry. Both must refuse the same tables and find the same bytes in the others.
//
// An indirect descriptor may refer to the ring's own table: so the tables that are enumerated serve
// as indirect ones, too, with every loop through themselves.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "policy/sanitizer.h"
#include "tests/fakes/guest_driver.h"
#include "worker/chain.h"

namespace {

using common::GuestAddr;
using common::kDescIndirect;
using common::kDescNext;
using common::kDescWrite;

struct Desc {
  std::uint64_t addr = 0;
  std::uint32_t len = 0;
  std::uint16_t flags = 0;
  std::uint16_t next = 0;
};

struct Place {
  std::uint64_t ram_start = 0;
  std::uint64_t ram_bytes = 0;
  std::uint64_t table = 0;
  bool indirect_allowed = true;
};

// What a chain is: bytes of the guest's, in order.
struct Piece {
  std::uint64_t addr = 0;
  std::uint64_t len = 0;
  bool writable = false;
  friend bool operator==(const Piece&, const Piece&) = default;
};
using Pieces = std::vector<Piece>;

class Model {
 public:
  Model(fakes::GuestRam& ram, const Place& place) : ram_(ram), place_(place) {}

  // Nothing where the driver has broken a rule.
  std::optional<Pieces> read(std::uint16_t size, std::uint32_t head) {
    if (!follow({place_.table, size, size, false}, head)) return std::nullopt;
    return pieces_;
  }

 private:
  struct Table {
    std::uint64_t addr = 0;
    std::uint32_t entries = 0;
    std::uint32_t longest = 0;
    bool indirect = false;
  };

  [[nodiscard]] bool mapped(std::uint64_t addr, std::uint64_t bytes) const {
    const std::uint64_t end = place_.ram_start + place_.ram_bytes;
    return addr >= place_.ram_start && addr < end && bytes <= end - addr;
  }

  bool follow(const Table& table, std::uint32_t index) {
    for (std::uint32_t count = 0;;) {
      if (index >= table.entries) return false;
      const std::uint64_t at = table.addr + index * 16ULL;
      if (!mapped(at, 16)) return false;
      const auto wire = ram_.get<common::WireDesc>(GuestAddr{at});
      const Desc desc{wire.addr.get(), wire.len.get(), wire.flags.get(), wire.next.get()};
      if ((desc.flags & ~(kDescNext | kDescWrite | kDescIndirect)) != 0) return false;
      // 2.7.5.3.1: no chain is longer than the queue; in an indirect table the bound is ours.
      if (++count > table.longest) return false;
      if ((desc.flags & kDescIndirect) != 0) return !table.indirect && enter(desc);
      if (!add(desc)) return false;
      if ((desc.flags & kDescNext) == 0) return true;
      index = desc.next;
    }
  }

  // 2.7.5.3
  bool enter(const Desc& holder) {
    if (!place_.indirect_allowed || (holder.flags & kDescNext) != 0) return false;
    if (holder.len == 0 || holder.len % 16 != 0) return false;
    return follow({holder.addr, holder.len / 16, worker::kIndirectChainMax, true}, 0);
  }

  bool add(const Desc& desc) {
    const bool writable = (desc.flags & kDescWrite) != 0;
    if (!writable && writable_seen_) return false;  // 2.7.4.2
    writable_seen_ = writable;
    total_ += desc.len;
    if (total_ > UINT32_MAX) return false;  // 2.7.5.2
    if (desc.len == 0) return true;
    if (!mapped(desc.addr, desc.len)) return false;
    const bool goes_on = !pieces_.empty() && pieces_.back().writable == writable &&
                         pieces_.back().addr + pieces_.back().len == desc.addr;
    if (goes_on) {
      pieces_.back().len += desc.len;
    } else {
      pieces_.push_back({desc.addr, desc.len, writable});
    }
    return true;
  }

  fakes::GuestRam& ram_;
  const Place& place_;
  Pieces pieces_;
  std::uint64_t total_ = 0;
  bool writable_seen_ = false;
};

// Every table of `size` descriptors, each one of `choices`.
class EveryTable : public testing::Test {
 protected:
  void compare_all(std::uint16_t size, const std::vector<Desc>& choices) {
    std::vector<std::size_t> digits(size, 0);
    std::vector<Desc> table(size);
    for (bool more = true; more && !HasFailure();) {
      for (std::uint16_t i = 0; i < size; ++i) {
        table[i] = choices[digits[i]];
        const Desc& desc = table[i];
        ram_.put(GuestAddr{place_.table + i * 16ULL},
                 fakes::make_desc({desc.addr}, desc.len, desc.flags, desc.next));
      }
      for (std::uint16_t head = 0; head < size; ++head) compare(table, head);
      std::size_t at = 0;
      while (at < size && ++digits[at] == choices.size()) digits[at++] = 0;
      more = at < size;
    }
    EXPECT_GT(accepted_, 0U);
    EXPECT_GT(refused_, 0U);
  }

  // Of the flags, the lengths, the addresses and the links that are given, every combination.
  static std::vector<Desc> combine(const std::vector<std::uint16_t>& flags,
                                   const std::vector<std::uint32_t>& lengths,
                                   const std::vector<std::uint64_t>& addresses,
                                   const std::vector<std::uint16_t>& links) {
    std::vector<Desc> all;
    for (const auto flag : flags) {
      for (const auto len : lengths) {
        for (const auto addr : addresses) {
          for (const auto link : links) all.push_back({addr, len, flag, link});
        }
      }
    }
    return all;
  }

  fakes::GuestRam ram_{1U << 16};
  Place place_{fakes::GuestRam::kDefaultStart, 1U << 16, ram_.alloc(4 * 16).value, true};
  std::uint64_t page_ = ram_.alloc(4096, 4096).value;

 private:
  void compare(const std::vector<Desc>& table, std::uint16_t head) {
    const auto size = static_cast<std::uint16_t>(table.size());
    const auto expected = Model(ram_, place_).read(size, head);
    const common::GuestMemory memory = ram_.memory();
    const auto window = memory.window({place_.table}, size * 16ULL, 16).value();
    worker::ChainReader reader(memory, window, size, place_.indirect_allowed, *scratch_);
    worker::Chain chain;
    const bool read = reader.read(head, chain).has_value();
    ++(read ? accepted_ : refused_);
    ASSERT_EQ(read, expected.has_value()) << words(table, head);
    if (read) {
      ASSERT_EQ(pieces_of(chain), *expected) << words(table, head);
    }
  }

  Pieces pieces_of(const worker::Chain& chain) {
    Pieces all;
    const auto* const base = ram_.bytes({place_.ram_start}, 1).data();
    const auto add = [&](std::span<const iovec> part, bool writable) {
      for (const iovec& piece : part) {
        const auto offset = static_cast<const std::byte*>(piece.iov_base) - base;
        all.push_back(
            {place_.ram_start + static_cast<std::uint64_t>(offset), piece.iov_len, writable});
      }
    };
    add(chain.readable, false);
    add(chain.writable, true);
    return all;
  }

  static std::string words(const std::vector<Desc>& table, std::uint16_t head) {
    std::string text = "head " + std::to_string(head);
    for (const Desc& desc : table) {
      text += "; addr " + std::to_string(desc.addr) + " len " + std::to_string(desc.len) +
              " flags " + std::to_string(desc.flags) + " next " + std::to_string(desc.next);
    }
    return text;
  }

  std::unique_ptr<worker::SegmentScratch> scratch_ = std::make_unique<worker::SegmentScratch>();
  std::uint64_t accepted_ = 0;
  std::uint64_t refused_ = 0;
};

const std::vector<std::uint16_t> kEveryFlag = {0, 1, 2, 3, 4, 5, 6, 7, 8};

TEST_F(EveryTable, OfOneDescriptorIsReadAsTheSpecificationSays) {
  compare_all(1, combine(kEveryFlag, {0, 1, 15, 16, 32, 4096, UINT32_MAX},
                         {page_, page_ + 16, place_.table, 0, UINT64_MAX,
                          place_.ram_start + place_.ram_bytes - 1},
                         {0, 1, UINT16_MAX}));
}

TEST_F(EveryTable, OfTwoDescriptorsIsReadAsTheSpecificationSays) {
  compare_all(2, combine(kEveryFlag, {0, 16, 32}, {page_, page_ + 16, place_.table, 0},
                         policy::kSanitizerBuild ? std::vector<std::uint16_t>{0, 1}
                                                 : std::vector<std::uint16_t>{0, 1, 2}));
}

TEST_F(EveryTable, OfTwoDescriptorsIsReadAsTheSpecificationSaysWithoutIndirectOnes) {
  place_.indirect_allowed = false;
  compare_all(2, combine(kEveryFlag, {0, 16}, {page_, place_.table, 0}, {0, 1, 2}));
}

TEST_F(EveryTable, OfFourDescriptorsIsReadAsTheSpecificationSays) {
  compare_all(4, combine({0, 1, 2, 3, 4}, {policy::kSanitizerBuild ? 32U : 64U}, {place_.table},
                         policy::kSanitizerBuild ? std::vector<std::uint16_t>{1, 3}
                                                 : std::vector<std::uint16_t>{0, 1, 2, 3}));
}

}  // namespace
