// broker/audit/json_line.h: one event as one line of JSON, and back.
//
//   {"seq":7,"time":"2026-01-31T09:00:00.000001Z","event":"vmm-connected","result":"granted",
//    "device":"vda", …, "prev":"<64 digits>","hash":"<64 digits>"}
//
// `hash` is the SHA-256 of the line's bytes before `,"hash"`, and `prev` the hash of the event
// before: whoever changes, adds or takes away a line has to write all that follow anew. The object
// is flat; values are numbers and strings. A string is printable UTF-8: any other byte in what it
// is made of is \xNN in it, and a backslash two.
//
// Not trusted: a line that is read. It may come from anybody who could write to the file.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/event.h"
#include "common/result.h"

namespace broker::audit {

using Time = std::chrono::system_clock::time_point;

// Longer than any line we write, by far; what is longer is none of ours.
inline constexpr std::size_t kLineBytesMax = 65536;

inline constexpr std::uint64_t kSeqMax = 1ULL << 62;  // So that there always is a next one.

// Where a chain stands: the event that the next one follows.
struct Head {
  std::uint64_t seq = 0;  // 0: before the first.
  std::string hash = std::string(2 * kDigestBytes, '0');

  friend bool operator==(const Head&, const Head&) = default;
};

struct Line {
  std::string text;  // Without the newline.
  Head head;         // What the next one follows.
};

[[nodiscard]] Line render_line(const Event& event, Time time, const Head& before);

// "2026-01-31T09:00:00.000001Z"
[[nodiscard]] std::string time_text(Time time);

struct ParsedLine {
  struct Field {
    std::string_view key;  // Of the line that was parsed.
    bool number = false;
    std::string value;  // Without JSON's escapes; ours (\xNN) still in it.
  };
  std::vector<Field> fields;
  std::uint64_t seq = 0;
  std::string_view prev;
  std::string_view hash;
  bool hash_fits = false;

  // Empty where there is none.
  [[nodiscard]] std::string_view value(std::string_view key) const noexcept;
  [[nodiscard]] Head head() const { return {seq, std::string(hash)}; }
};

// The error continues "line 7 ": "is cut off", "has a byte that …". `line` outlives what it
// returns.
[[nodiscard]] common::Result<ParsedLine, std::string> parse_line(std::string_view line);

}  // namespace broker::audit
