// tests/escape/main.cpp: runs the tests, or with one permission changed (tests/escape/mutate).
#include <gtest/gtest.h>

#include <cstdio>
#include <string_view>

#include "tests/escape/mutation.h"

int main(int count, char** arguments) {
  constexpr std::string_view kOne = "--mutation=";
  for (int i = 1; i < count; ++i) {
    const std::string_view word = arguments[i];
    if (word == "--mutations") {
      for (const std::string& text : escape::list_mutations()) std::printf("%s\n", text.c_str());
      return 0;
    }
    if (word.starts_with(kOne)) {
      escape::choose_mutation(std::stoul(std::string(word.substr(kOne.size()))));
    }
  }
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}
