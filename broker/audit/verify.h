// broker/audit/verify.h: whether the lines of an audit log are all there, unchanged and in order.
//
// Not trusted: the lines. What a chain without a secret can show has its limits: whoever can write
// to the file can write the whole chain anew, or cut off its end. Against that there is a head that
// was noted elsewhere: the broker says it in its log when it starts and ends, and `expected` asks
// for it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "broker/audit/json_line.h"

namespace broker::audit {

class Verifier {
 public:
  // What is wrong, or only to be known (`wrong` false), and where.
  struct Finding {
    bool wrong;
    std::string text;
  };
  using Tell = std::function<void(const Finding&)>;

  Verifier(Tell tell, std::optional<Head> expected)
      : tell_(std::move(tell)), expected_(std::move(expected)) {}

  // The next line, without its newline. `where` is "audit.log:7".
  void line(std::string_view where, std::string_view text);
  // No more lines. True where nothing is wrong.
  [[nodiscard]] bool finish();

  [[nodiscard]] std::uint64_t events() const noexcept { return events_; }
  [[nodiscard]] const Head& head() const noexcept { return head_; }

 private:
  struct Broken {
    std::string where;
    std::string what;
    std::size_t bytes;
  };
  void event(std::string_view where, const ParsedLine& line);
  void first(std::string_view where, const ParsedLine& line);
  void next(std::string_view where, const ParsedLine& line);
  void say_broken(std::uint64_t torn_bytes);
  void wrong(std::string_view where, const std::string& what);
  void note(std::string_view where, const std::string& what);

  Tell tell_;
  std::optional<Head> expected_;
  bool expected_seen_ = false;
  bool expected_broken_ = false;  // Its number was there, with another hash.
  bool any_wrong_ = false;
  std::uint64_t events_ = 0;
  Head head_;
  bool ended_ = false;            // The last event is the broker's end.
  std::optional<Broken> broken_;  // A line that is no event: maybe the next one explains it.
};

}  // namespace broker::audit
