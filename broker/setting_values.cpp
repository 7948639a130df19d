#include "broker/setting_values.h"

#include <net/if.h>

#include <algorithm>
#include <cstdio>
#include <limits>

#include "broker/text.h"

namespace broker {

using common::fail;

std::unexpected<std::string> must_be(std::string_view what, std::string_view value) {
  return fail("must be " + std::string(what) + ", not " + in_quotes(value));
}

std::vector<std::string_view> split_at_commas(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t comma = text.find(',');
    parts.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return parts;
    text.remove_prefix(comma + 1);
  }
}

Answer<bool> parse_switch(std::string_view text) {
  for (const std::string_view word : {"on", "true", "yes", "1"}) {
    if (text == word) return true;
  }
  for (const std::string_view word : {"off", "false", "no", "0"}) {
    if (text == word) return false;
  }
  return must_be("on or off", text);
}

Answer<std::string> text_within(std::string_view text, std::size_t bytes_max) {
  if (text.empty()) return fail(std::string("must not be empty"));
  if (text.size() > bytes_max) {
    return fail("must be at most " + std::to_string(bytes_max) + " bytes long, and has " +
                std::to_string(text.size()));
  }
  if (text.find('\0') != std::string_view::npos) {
    return fail(std::string("must not contain a zero byte"));
  }
  return std::string(text);
}

Answer<MacAddress> parse_mac(std::string_view text) {
  constexpr std::size_t kTextBytes = 17;  // Six pairs of digits, five colons.
  const auto wrong = [&] {
    return must_be("six pairs of hexadecimal digits like 52:54:00:12:34:56", text);
  };
  if (text.size() != kTextBytes) return wrong();
  MacAddress mac{};
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const auto byte = parse_number<std::uint8_t>(text.substr(i * 3, 2), 16);
    if (!byte || (i + 1 < mac.size() && text[i * 3 + 2] != ':')) return wrong();
    mac[i] = *byte;
  }
  if ((mac[0] & 1) != 0 || mac == MacAddress{}) {
    return must_be("the address of one card: its first byte even, and not all zeros", text);
  }
  return mac;
}

std::string mac_text(const MacAddress& mac) {
  std::string text;
  for (const std::uint8_t byte : mac) {
    char digits[4];
    std::snprintf(digits, sizeof(digits), "%02x:", byte);
    text += digits;
  }
  text.pop_back();
  return text;
}

Answer<std::string> parse_uuid(std::string_view text) {
  constexpr std::string_view kShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  std::string uuid(text);
  bool legal = text.size() == kShape.size();
  for (std::size_t i = 0; legal && i < uuid.size(); ++i) {
    if (uuid[i] >= 'A' && uuid[i] <= 'F') uuid[i] = static_cast<char>(uuid[i] - 'A' + 'a');
    const bool digit = (uuid[i] >= '0' && uuid[i] <= '9') || (uuid[i] >= 'a' && uuid[i] <= 'f');
    legal = kShape[i] == '-' ? uuid[i] == '-' : digit;
  }
  if (!legal) return must_be("a UUID such as 6a2f41a3-c54c-fce8-32d2-0324e1c32e22", text);
  return uuid;
}

Answer<std::string> parse_interface_name(std::string_view text) {
  const bool legal = !text.empty() && text.size() < IFNAMSIZ && text != "." && text != ".." &&
                     std::all_of(text.begin(), text.end(), [](char character) {
                       return character > ' ' && character <= '~' && character != '/' &&
                              character != ':' && character != '%';
                     });
  if (legal) return std::string(text);
  return must_be("the name of an interface: 1 to " + std::to_string(IFNAMSIZ - 1) +
                     " characters, without blanks and / : %",
                 text);
}

Answer<int> parse_descriptor(std::string_view text) {
  TRY_LET(const int number, number_within<int>(text, 0, std::numeric_limits<int>::max()));
  if (number == 1 || number == 2) {
    return fail("must not be " + std::to_string(number) +
                ": that is where messages are written; pass it as 3 or above");
  }
  return number;
}

Answer<std::vector<int>> parse_descriptors(std::string_view text, std::size_t count_max) {
  std::vector<int> numbers;
  for (const std::string_view part : split_at_commas(text)) {
    TRY_LET(const int number, parse_descriptor(part));
    if (std::find(numbers.begin(), numbers.end(), number) != numbers.end()) {
      return fail("names descriptor " + std::to_string(number) +
                  " twice; each pair of queues needs its own");
    }
    numbers.push_back(number);
  }
  if (numbers.size() > count_max) {
    return fail("must name at most " + std::to_string(count_max) + " descriptors");
  }
  return numbers;
}

}  // namespace broker
