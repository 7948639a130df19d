// broker/text.h: small things about text that an operator reads or writes.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace broker {

// Control characters, and bytes that are no UTF-8, as \xNN; C1 controls and the Unicode characters
// that break or turn lines likewise. What comes out is one line that says what it seems to say.
[[nodiscard]] std::string clean_text(std::string_view text);

// "No such file or directory".
[[nodiscard]] std::string errno_text(int os_errno);

// "'text'", cleaned and at most about 200 bytes long: for quoting what somebody else wrote.
[[nodiscard]] std::string in_quotes(std::string_view text);

// How many single-character edits lie between the two, neighbours swapped counting as one.
[[nodiscard]] std::size_t edit_distance(std::string_view left, std::string_view right);

// The candidate that `word` was probably meant to be; empty where none is near.
[[nodiscard]] std::string_view nearest(std::string_view word,
                                       std::span<const std::string_view> candidates);

// "3.1 ms".
[[nodiscard]] std::string milliseconds_text(std::chrono::steady_clock::duration time);

// "a, b or c".
[[nodiscard]] std::string join_or(std::span<const std::string_view> words);

}  // namespace broker
