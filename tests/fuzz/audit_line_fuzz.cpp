// The lines of an audit log that somebody else may have written: parsing, verifying and explaining
// them. Whatever they hold, what is printed is printable, and an event that parses and whose hash
// fits is one that a broker could have written.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "broker/audit/explain.h"
#include "broker/audit/json_line.h"
#include "broker/audit/verify.h"
#include "broker/text.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using namespace broker::audit;
using fuzz::require;

void expect_printable(std::string_view text) { require(broker::clean_text(text) == text); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  Verifier verifier([](const Verifier::Finding& finding) { expect_printable(finding.text); }, {});
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    verifier.line("log", line);
    if (const auto parsed = parse_line(line)) {
      require(parsed->seq >= 1 && parsed->seq <= kSeqMax);
      require(parsed->hash.size() == 2 * kDigestBytes);
      require(parsed->prev.size() == 2 * kDigestBytes);
      expect_printable(explain(*parsed));
    } else {
      expect_printable(parsed.error());
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  (void)verifier.finish();

  // What is written of it is read back as the same text.
  const std::string_view bytes(reinterpret_cast<const char*>(data),
                               std::min<std::size_t>(size, 1000));
  const Line line = render_line(Event(Kind::kVmmRefused).with(Key::kCause, bytes), Time{}, {});
  const auto parsed = parse_line(line.text);
  require(parsed.has_value() && parsed->hash_fits);
  expect_printable(parsed->value("cause"));
  return 0;
}
