#include "broker/audit/json_line.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "broker/setting_values.h"
#include "broker/text.h"

namespace broker::audit {
namespace {

using common::fail;
using common::Result;

constexpr std::string_view kPrevKey = "prev";
constexpr std::string_view kHashKey = "hash";
constexpr std::size_t kHashDigits = 2 * kDigestBytes;
constexpr std::size_t kFieldsMax = 64;

// --- writing -------------------------------------------------------------------------------------

std::string doubled(std::string_view text, std::string_view characters) {
  std::string out;
  for (const char character : text) {
    if (characters.find(character) != std::string_view::npos) out += '\\';
    out += character;
  }
  return out;
}

// A backslash of the text's own is doubled before clean_text() writes any, so both can be told
// apart.
std::string in_json(std::string_view text) {
  return "\"" + doubled(clean_text(doubled(text, "\\")), "\"\\") + "\"";
}

void append(std::string& line, std::string_view key, std::string_view json_value) {
  if (line.size() > 1) line += ',';
  line.append("\"").append(key).append("\":").append(json_value);
}

// --- reading -------------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(std::string_view line) : line_(line) {}

  Result<std::vector<ParsedLine::Field>, std::string> fields() {
    std::vector<ParsedLine::Field> fields;
    TRY(expect('{'));
    while (true) {
      if (fields.size() == kFieldsMax) return fail(std::string("has too many fields"));
      TRY_LET(ParsedLine::Field field, next_field());
      const bool known = std::any_of(fields.begin(), fields.end(),
                                     [&](const auto& other) { return other.key == field.key; });
      if (known) return fail("has '" + std::string(field.key) + "' twice");
      fields.push_back(std::move(field));
      if (at_ < line_.size() && line_[at_] == '}') break;
      TRY(expect(','));
    }
    ++at_;
    if (at_ != line_.size()) return fail(std::string("goes on after its end"));
    return fields;
  }

 private:
  Result<void, std::string> expect(char character) {
    if (at_ >= line_.size()) return fail(std::string("is cut off"));
    if (line_[at_] != character) {
      return fail("is no event: byte " + std::to_string(at_ + 1) + " should be '" +
                  std::string(1, character) + "'");
    }
    ++at_;
    return {};
  }

  Result<ParsedLine::Field, std::string> next_field() {
    ParsedLine::Field field;
    TRY(expect('"'));
    const std::size_t begin = at_;
    while (at_ < line_.size() && ((line_[at_] >= 'a' && line_[at_] <= 'z') || line_[at_] == '_')) {
      ++at_;
    }
    field.key = line_.substr(begin, at_ - begin);
    TRY(expect('"'));
    TRY(expect(':'));
    field.number = at_ < line_.size() && line_[at_] != '"';
    if (field.number) {
      TRY_LET(field.value, digits());
    } else {
      TRY_LET(field.value, string());
    }
    return field;
  }

  Result<std::string, std::string> digits() {
    const std::size_t begin = at_;
    while (at_ < line_.size() && line_[at_] >= '0' && line_[at_] <= '9') ++at_;
    const std::string_view text = line_.substr(begin, at_ - begin);
    const bool plain = text == "0" || !text.starts_with('0');
    if (!plain || !parse_number<std::uint64_t>(text)) {
      return fail("is no event: byte " + std::to_string(begin + 1) + " begins no number");
    }
    return std::string(text);
  }

  // Only the escapes that in_json() writes.
  Result<std::string, std::string> string() {
    std::string value;
    TRY(expect('"'));
    while (true) {
      if (at_ >= line_.size()) return fail(std::string("is cut off"));
      char character = line_[at_++];
      if (character == '"') return value;
      if (character == '\\') {
        if (at_ >= line_.size()) return fail(std::string("is cut off"));
        character = line_[at_++];
        if (character != '"' && character != '\\') {
          return fail("is no event: byte " + std::to_string(at_) + " has an unknown escape");
        }
      } else if (static_cast<unsigned char>(character) < ' ' || character == '\x7f') {
        return fail("is no event: byte " + std::to_string(at_) + " is a control character");
      }
      value += character;
    }
  }

  std::string_view line_;
  std::size_t at_ = 0;
};

bool is_hash(const ParsedLine::Field& field, std::string_view key) {
  return field.key == key && !field.number && field.value.size() == kHashDigits &&
         field.value.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

// Not gmtime(): it would look for the host's time zone.
std::string time_text(Time time) {
  namespace chrono = std::chrono;
  const auto since = chrono::floor<chrono::microseconds>(time);
  const auto day = chrono::floor<chrono::days>(since);
  const chrono::year_month_day date(day);
  const chrono::hh_mm_ss clock(since - day);
  char text[64];
  std::snprintf(
      text, sizeof(text), "%04d-%02u-%02uT%02d:%02d:%02d.%06dZ", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
      static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
      static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  return text;
}

Line render_line(const Event& event, Time time, const Head& before) {
  std::string line = "{";
  append(line, "seq", std::to_string(before.seq + 1));
  append(line, "time", in_json(time_text(time)));
  append(line, "event", in_json(name_of(event.kind())));
  append(line, "result", in_json(name_of(ruling_of(event.kind()))));
  for (const Event::Field& field : event.fields()) {
    append(line, name_of(field.key), field.number ? field.text : in_json(field.text));
  }
  append(line, kPrevKey, in_json(before.hash));
  std::string hash = hex(sha256(line));
  append(line, kHashKey, in_json(hash));
  line += '}';
  return {std::move(line), {before.seq + 1, std::move(hash)}};
}

std::string_view ParsedLine::value(std::string_view key) const noexcept {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [key](const Field& field) { return field.key == key; });
  return found == fields.end() ? std::string_view() : std::string_view(found->value);
}

Result<ParsedLine, std::string> parse_line(std::string_view line) {
  if (line.size() > kLineBytesMax) return fail(std::string("is longer than any event"));
  ParsedLine parsed;
  TRY_LET(parsed.fields, Reader(line).fields());
  const auto& fields = parsed.fields;
  const std::size_t count = fields.size();
  if (fields[0].key != "seq" || !fields[0].number || fields[0].value == "0" || count < 3 ||
      !is_hash(fields[count - 2], kPrevKey) || !is_hash(fields[count - 1], kHashKey)) {
    return fail(std::string("is no event: it has no number, or no hashes at its end"));
  }
  parsed.seq = *parse_number<std::uint64_t>(fields[0].value);
  if (parsed.seq > kSeqMax) return fail(std::string("is no event: its number is impossible"));
  // They have no escapes, so they stand in the line as they are.
  const std::size_t hash_at = line.size() - kHashDigits - 2;
  parsed.hash = line.substr(hash_at, kHashDigits);
  const std::size_t hashed = hash_at - std::string_view(R"(,"hash":")").size();
  parsed.prev = line.substr(hashed - kHashDigits - 1, kHashDigits);
  parsed.hash_fits = hex(sha256(line.substr(0, hashed))) == parsed.hash;
  return parsed;
}

}  // namespace broker::audit
