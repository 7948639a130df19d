#include "broker/toml_guard.h"

#include <cstdint>
#include <utility>

namespace broker {
namespace {

enum class Inside : std::uint8_t { kNothing, kComment, kString };

constexpr std::string_view kThreeQuotes = "\"\"\"";

bool is_blank(char character) { return character == ' ' || character == '\t'; }

bool is_ordinary(char character) {
  return (character >= ' ' && character <= '~') || character == '\t' || character == '\n' ||
         character == '\r';
}

bool begins_name(char character) {
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
         (character >= '0' && character <= '9') || character == '_' || character == '-' ||
         character == '"' || character == '\'';
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::optional<TomlObjection> run() {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // A byte order mark is as good as nothing.
    line_start_ = at_;
    while (at_ < text_.size()) {
      if (auto objection = step()) return objection;
    }
    return std::nullopt;
  }

 private:
  std::optional<TomlObjection> step() {
    if (inside_ == Inside::kString) return step_in_string();
    const char character = text_[at_];
    if (character == '\n') {
      inside_ = Inside::kNothing;
      begin_entry();
    } else if (inside_ == Inside::kNothing) {
      if (!is_ordinary(character)) return object("only text in quotes may have this character");
      if (character == '[' && begins_line()) return check_header();
      if (character == '#') inside_ = Inside::kComment;
      if (character == '"' || character == '\'') return enter_string(character);
      note(character);
    }
    advance(1);
    return std::nullopt;
  }

  // --- where a text in quotes may begin: as a key, or as a value. Elsewhere toml++ takes the quote
  // for a part of a number, and reads on.
  void begin_entry() {
    may_quote_ = true;
    is_value_ = false;
  }

  void note(char character) {
    if (is_blank(character)) return;
    const bool here = std::exchange(may_quote_, false);
    if (character == '=') {
      may_quote_ = !std::exchange(is_value_, true);
    } else if (character == ',') {
      begin_entry();
    } else if (character == '.') {
      may_quote_ = !is_value_;
    } else if (character == '[' || character == '{') {
      may_quote_ = here;
      if (character == '{') is_value_ = false;
    }
  }

  std::optional<TomlObjection> enter_string(char quote) {
    if (!std::exchange(may_quote_, false)) {
      return object("text in quotes must be all of a value: key = \"text\"");
    }
    const std::string three(3, quote);
    quote_ = text_.substr(at_).starts_with(three) ? three : std::string(1, quote);
    inside_ = Inside::kString;
    advance(quote_.size());
    return std::nullopt;
  }

  std::optional<TomlObjection> step_in_string() {
    if (is_strange_escape())
      return object("no such escape is known: after '\\' comes one of b t n f r \" \\ u U");
    if (text_.substr(at_).starts_with(quote_)) {
      inside_ = Inside::kNothing;
      advance(quote_.size());
    } else if (quote_.size() == 1 && text_[at_] == '\n') {
      inside_ = Inside::kNothing;  // Not closed: toml++ says so.
      begin_entry();
      advance(1);
    } else {
      const bool escape = quote_[0] == '"' && text_[at_] == '\\';
      advance(escape && at_ + 1 < text_.size() && text_[at_ + 1] != '\n' ? 2 : 1);
    }
    return std::nullopt;
  }

  // In a text of several lines toml++ asks whether white space follows a backslash, or the line end
  // that it hides, with a look-up that is undefined for some of the characters above ASCII.
  bool is_strange_escape() const {
    if (quote_ != kThreeQuotes || text_[at_] != '\\' || at_ + 1 >= text_.size()) return false;
    const char next = text_[at_ + 1];
    return !(next > ' ' && next <= '~');
  }

  // "[name" or "[[name" or an empty "[]", which toml++ refuses itself.
  std::optional<TomlObjection> check_header() {
    begin_entry();
    skip_bracket();
    if (at_ < text_.size() && text_[at_] == '[') skip_bracket();
    if (at_ < text_.size() && (begins_name(text_[at_]) || text_[at_] == ']')) return std::nullopt;
    return object("a name must follow '[', as in [[device]]");
  }

  void skip_bracket() {
    advance(1);
    while (at_ < text_.size() && is_blank(text_[at_])) advance(1);
  }

  bool begins_line() const {
    for (std::size_t i = line_start_; i < at_; ++i) {
      if (!is_blank(text_[i])) return false;
    }
    return true;
  }

  void advance(std::size_t bytes) {
    for (; bytes > 0; --bytes, ++at_) {
      if (text_[at_] != '\n') continue;
      ++line_;
      line_start_ = at_ + 1;
    }
  }

  TomlObjection object(std::string text) const {
    std::size_t column = 1;
    for (std::size_t i = line_start_; i < at_; ++i) {
      if ((static_cast<std::uint8_t>(text_[i]) & 0xc0) != 0x80) ++column;
    }
    return TomlObjection{line_, column, std::move(text)};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
  std::size_t line_start_ = 0;
  Inside inside_ = Inside::kNothing;
  bool may_quote_ = true;
  bool is_value_ = false;  // Behind a '='.
  std::string quote_;      // What ends the string: one quote, or three.
};

}  // namespace

std::optional<TomlObjection> find_toml_objection(std::string_view text) {
  return Scanner(text).run();
}

}  // namespace broker
