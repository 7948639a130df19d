#include "broker/audit/explain.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>

#include "broker/text.h"

namespace broker::audit {
namespace {

using Lookup = std::function<std::string_view(std::string_view key)>;

struct Filled {
  std::string text;
  bool complete = true;  // No value was missing.
};

// Values between {}.
Filled fill_part(std::string_view part, const Lookup& value_of) {
  Filled filled;
  while (!part.empty()) {
    const std::size_t open = std::min(part.find('{'), part.size());
    filled.text += part.substr(0, open);
    part.remove_prefix(open);
    const std::size_t close = part.find('}');
    if (close == std::string_view::npos) break;
    const std::string_view value = value_of(part.substr(1, close - 1));
    if (value.empty()) filled.complete = false;
    filled.text += value.empty() ? "?" : clean_text(value);
    part.remove_prefix(close + 1);
  }
  return filled;
}

// Parts between [] only where they are complete.
std::string fill(std::string_view sentence, const Lookup& value_of) {
  std::string text;
  while (!sentence.empty()) {
    const std::size_t open = std::min(sentence.find('['), sentence.size());
    text += fill_part(sentence.substr(0, open), value_of).text;
    sentence.remove_prefix(open);
    if (sentence.empty()) break;
    const std::size_t close = std::min(sentence.find(']'), sentence.size());
    const Filled optional = fill_part(sentence.substr(1, close - 1), value_of);
    if (optional.complete) text += optional.text;
    sentence.remove_prefix(std::min(close + 1, sentence.size()));
  }
  return text;
}

std::string everything(const ParsedLine& line) {
  std::string text = "'" + clean_text(line.value("event")) + "'";
  for (const ParsedLine::Field& field : line.fields) {
    text += " " + clean_text(field.key) + "=" + clean_text(field.value);
  }
  return text;
}

}  // namespace

std::string explain(const ParsedLine& line) {
  std::string text = "event " + std::to_string(line.seq) + ", " + clean_text(line.value("time")) +
                     ", " + clean_text(line.value("result")) + ": ";
  const std::optional<Kind> kind = kind_named(line.value("event"));
  if (!kind) return text + "an event that this version does not know: " + everything(line);
  text += fill(sentence_of(*kind), [&](std::string_view key) { return line.value(key); });
  if (!line.hash_fits) text += " (changed after it was written: its hash does not fit)";
  return text;
}

std::string in_words(const Event& event) {
  return fill(sentence_of(event.kind()), [&](std::string_view name) {
    for (const Event::Field& field : event.fields()) {
      if (name_of(field.key) == name) return std::string_view(field.text);
    }
    return std::string_view();
  });
}

}  // namespace broker::audit
