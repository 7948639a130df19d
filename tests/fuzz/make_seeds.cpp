// tests/fuzz/make_seeds.cpp: writes honest inputs for chain_fuzz, blk_request_fuzz and
// net_queue_fuzz, from which the fuzzer learns what a ring looks like.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "common/virtio_blk_wire.h"
#include "common/virtqueue_wire.h"
#include "tests/fuzz/fuzz_guest.h"

namespace {

using common::Le16;
using common::Le32;
using common::Le64;
using common::blk::RequestType;
using Bytes = std::vector<std::uint8_t>;

// One image of a guest's memory, built front to back.
class Image {
 public:
  explicit Image(bool indirect, bool packed = false)
      : indirect_(indirect), packed_(packed), bytes_(fuzz::Guest::kHeap - fuzz::Guest::kStart) {}

  template <typename T>
  void put(std::uint64_t addr, const T& value) {
    const std::size_t at = addr - fuzz::Guest::kStart;
    if (bytes_.size() < at + sizeof(T)) bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
  }
  std::uint64_t room(std::size_t bytes) {
    const std::uint64_t at = fuzz::Guest::kStart + (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at - fuzz::Guest::kStart + bytes);
    return at;
  }

  void add(RequestType type, std::uint64_t sector, std::uint32_t in, std::uint32_t out,
           const std::vector<common::blk::WireRange>& ranges = {}) {
    const std::uint64_t header = room(16);
    put(header, common::blk::WireRequestHeader{Le32(static_cast<std::uint32_t>(type)), Le32(0),
                                               Le64(sector)});
    std::vector<common::WireDesc> chain{desc(header, 16, 0)};
    if (!ranges.empty()) {
      const std::uint64_t at = room(ranges.size() * 16);
      for (std::size_t i = 0; i < ranges.size(); ++i) put(at + i * 16, ranges[i]);
      chain.push_back(desc(at, static_cast<std::uint32_t>(ranges.size() * 16), 0));
    }
    if (out > 0) chain.push_back(desc(room(out), out, 0));
    if (in > 0) chain.push_back(desc(room(in), in, common::kDescWrite));
    chain.push_back(desc(room(1), 1, common::kDescWrite));
    publish(chain);
  }

  // A buffer of `size` bytes that begins with `bytes`; and a second one, for the device to write.
  void add_buffers(const Bytes& bytes, std::uint32_t size, std::uint32_t out) {
    std::vector<common::WireDesc> chain;
    if (size != 0) {
      const std::uint64_t at = room(size);
      for (std::size_t i = 0; i < bytes.size(); ++i) put(at + i, bytes[i]);
      chain.push_back(desc(at, size, 0));
    }
    if (out != 0) chain.push_back(desc(room(out), out, common::kDescWrite));
    publish(chain);
  }

  [[nodiscard]] const Bytes& bytes() const { return bytes_; }

 private:
  static common::WireDesc desc(std::uint64_t addr, std::uint32_t len, std::uint16_t flags) {
    return {Le64(addr), Le32(len), Le16(flags), Le16(0)};
  }

  // A packed ring's first round: AVAIL without USED, neither links nor indices.
  void publish_packed(const std::vector<common::WireDesc>& chain) {
    const auto put_at = [this](std::uint64_t at, const common::WireDesc& from,
                               std::uint16_t flags) {
      put(at, common::WirePackedDesc{from.addr, from.len, Le16(next_desc_),
                                     Le16(static_cast<std::uint16_t>(from.flags.get() | flags))});
    };
    if (indirect_) {
      const std::uint64_t table = room(chain.size() * 16);
      for (std::size_t i = 0; i < chain.size(); ++i) put_at(table + i * 16U, chain[i], 0);
      const auto bytes = static_cast<std::uint32_t>(chain.size() * 16);
      put_at(fuzz::Guest::kDesc + next_desc_++ * 16U, desc(table, bytes, common::kDescIndirect),
             common::kPackedAvail);
      return;
    }
    for (std::size_t i = 0; i < chain.size(); ++i) {
      const std::uint16_t next = i + 1 == chain.size() ? std::uint16_t{0} : common::kDescNext;
      put_at(fuzz::Guest::kDesc + next_desc_ * 16U, chain[i],
             static_cast<std::uint16_t>(common::kPackedAvail | next));
      ++next_desc_;
    }
  }

  void publish(std::vector<common::WireDesc>& chain) {
    if (packed_) return publish_packed(chain);
    const std::uint16_t head = next_desc_;
    const auto entries = static_cast<std::uint16_t>(chain.size());
    const std::uint64_t table =
        indirect_ ? room(chain.size() * 16) : fuzz::Guest::kDesc + head * 16U;
    const std::uint16_t first = indirect_ ? 0 : head;
    for (std::uint16_t i = 0; i < entries; ++i) {
      const bool last = i + 1 == entries;
      chain[i].flags =
          Le16(static_cast<std::uint16_t>(chain[i].flags.get() | (last ? 0 : common::kDescNext)));
      chain[i].next = Le16(static_cast<std::uint16_t>(last ? 0 : first + i + 1));
      put(table + i * 16U, chain[i]);
    }
    if (indirect_)
      put(fuzz::Guest::kDesc + head * 16U, desc(table, entries * 16U, common::kDescIndirect));
    next_desc_ = static_cast<std::uint16_t>(next_desc_ + (indirect_ ? 1 : entries));
    put(fuzz::Guest::kAvail + common::kAvailRingOffset + avail_ * 2U, Le16(head));
    put(fuzz::Guest::kAvail + common::kAvailIdxOffset, Le16(++avail_));
  }

  bool indirect_;
  bool packed_;
  Bytes bytes_;
  std::uint16_t next_desc_ = 0;
  std::uint16_t avail_ = 0;
};

void fill(Image& image, int kind) {
  const std::vector<common::blk::WireRange> ranges{{Le64(8), Le32(8), Le32(0)},
                                                   {Le64(32), Le32(3), Le32(0)}};
  if (kind == 0) image.add(RequestType::kIn, 1, 512, 0);
  if (kind == 1) image.add(RequestType::kOut, 2, 0, 1024);
  if (kind == 2) image.add(RequestType::kFlush, 0, 0, 0);
  if (kind == 3) image.add(RequestType::kGetId, 0, 20, 0);
  if (kind == 4) image.add(RequestType::kDiscard, 0, 0, 0, ranges);
  if (kind == 5) image.add(RequestType::kWriteZeroes, 0, 0, 0, ranges);
}

void write(const std::filesystem::path& file, const Bytes& bytes) {
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

// Of a packed ring the size is no power of two, and it stands at its first descriptor.
constexpr std::uint8_t kPackedSize = 62;

void write_seeds(const std::filesystem::path& directory, const std::string& name,
                 const Image& image, bool packed = false) {
  const std::uint8_t ring_size = packed ? kPackedSize : 6;
  Bytes chain{6, 1, 0, 0};
  if (packed) chain = {kPackedSize, 3, 0, 0x80};
  chain.insert(chain.end(), image.bytes().begin(), image.bytes().end());
  write(directory / "chain" / name, chain);

  const std::uint8_t devices[] = {0, 2 | 4};  // Plain; direct with a buffered descriptor.
  for (const std::uint8_t device : devices) {
    const std::size_t size = image.bytes().size();
    Bytes request{ring_size,
                  device,
                  static_cast<std::uint8_t>(packed ? 0x77 : 0x37),
                  0x03,
                  static_cast<std::uint8_t>(size),
                  static_cast<std::uint8_t>(size >> 8U)};
    request.insert(request.end(), image.bytes().begin(), image.bytes().end());
    // A turn without scribbling, whole transfers; then some short and failing ones.
    const Bytes script{0, 0, 0, 0, 0, 0xc5, 0xe2, 0, 1, 0xe4, 0, 0};
    request.insert(request.end(), script.begin(), script.end());
    write(directory / "blk_request" / (name + (device == 0 ? "" : "-direct")), request);
  }
}

// Features: all that are in the low half. `flags`: see net_queue_fuzz.cpp.
void write_net_seed(const std::filesystem::path& directory, const std::string& name,
                    std::uint8_t flags, const Image& image, const Bytes& script) {
  const std::size_t size = image.bytes().size();
  Bytes input{(flags & 32U) != 0 ? kPackedSize : std::uint8_t{6},
              flags,
              0xff,
              0xff,
              0xdc,
              0x05,
              static_cast<std::uint8_t>(size),
              static_cast<std::uint8_t>(size >> 8U)};
  input.insert(input.end(), image.bytes().begin(), image.bytes().end());
  input.insert(input.end(), script.begin(), script.end());
  write(directory / "net_queue" / name, input);
}

void write_net_seeds(const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory / "net_queue");
  for (const int shape : {0, 1, 2, 3}) {
    const bool indirect = (shape & 1) != 0;
    const bool packed = (shape & 2) != 0;
    const auto ring = static_cast<std::uint8_t>((indirect ? 12 : 4) | (packed ? 32 : 0));
    const std::string suffix = std::string(indirect ? "-indirect" : "") + (packed ? "-packed" : "");
    Image receive(indirect, packed);
    for (int i = 0; i < 20; ++i) receive.add_buffers({}, 0, 600);
    // Short ones, one that needs several buffers, one too many, a tap that is empty in between.
    const Bytes packets{0, 0x20, 0x20, 0, 0x30, 0xa0, 0x20, 0, 0xc4, 0, 0xe0, 0x20, 0, 0x21, 0x22};
    write_net_seed(directory, "receive" + suffix, ring, receive, packets);

    Image transmit(indirect, packed);
    transmit.add_buffers({}, 72, 0);
    transmit.add_buffers({1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0}, 3012, 0);
    transmit.add_buffers({1, 5, 42, 0, 0x60, 4, 34, 0, 6, 0, 0, 0}, 2012, 0);
    transmit.add_buffers({1, 0x84, 74, 0, 0xa8, 5, 54, 0, 16, 0, 0, 0}, 2012, 0);
    write_net_seed(directory, "transmit" + suffix, static_cast<std::uint8_t>(ring | 1), transmit,
                   {0, 0, 0xe0, 0, 0xe3, 0, 0, 0, 0});

    Image control(indirect, packed);
    control.add_buffers({4, 0, 2, 0}, 4, 1);
    control.add_buffers({5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0}, 10, 1);
    control.add_buffers({0, 0, 1}, 3, 1);
    control.add_buffers({1, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6}, 22, 1);
    control.add_buffers({1, 1, 2, 3, 4, 5, 6, 7}, 8, 1);
    control.add_buffers({3, 0}, 2, 1);
    write_net_seed(directory, "control" + suffix, static_cast<std::uint8_t>(ring | 2), control,
                   {1, 1, 0, 1, 1, 1});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_seeds DIRECTORY\n", stderr);
    return 2;
  }
  const std::filesystem::path directory(argv[1]);
  std::filesystem::create_directories(directory / "chain");
  std::filesystem::create_directories(directory / "blk_request");
  const char* const names[] = {"read", "write", "flush", "get-id", "discard", "write-zeroes"};
  for (int kind = 0; kind < 6; ++kind) {
    for (const bool indirect : {false, true}) {
      Image image(indirect);
      fill(image, kind);
      const std::string name = std::string(names[kind]) + (indirect ? "-indirect" : "");
      write_seeds(directory, name, image);
      Image packed(indirect, true);
      fill(packed, kind);
      write_seeds(directory, name + "-packed", packed, true);
    }
  }
  Image all(true);
  for (int kind = 0; kind < 6; ++kind) fill(all, kind);
  write_seeds(directory, "all", all);
  Image all_packed(true, true);
  for (int kind = 0; kind < 6; ++kind) fill(all_packed, kind);
  write_seeds(directory, "all-packed", all_packed, true);
  write_net_seeds(directory);
  return 0;
}
