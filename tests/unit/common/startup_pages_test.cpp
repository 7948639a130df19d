#include "common/startup_pages.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <sstream>
#include <string>

namespace {

// How much of this process's executable mappings is in memory, in kB (proc(5), smaps).
std::size_t resident_code_kb() {
  std::ifstream smaps("/proc/self/smaps");
  std::size_t sum = 0;
  bool code = false;
  for (std::string line; std::getline(smaps, line);) {
    std::istringstream words(line);
    std::string first, second;
    words >> first >> second;
    if (first.find('-') != std::string::npos && first.back() != ':') code = second == "r-xp";
    if (code && first == "Rss:") sum += std::stoul(second);
  }
  return sum;
}

TEST(StartupPages, CodeThatIsGivenBackIsNoLongerChargedToTheProcess) {
  const std::size_t before = resident_code_kb();
  common::give_back_startup_pages();
  EXPECT_LT(resident_code_kb(), before);
}

TEST(StartupPages, WhatIsGivenBackComesBackWhenItIsTouched) {
  common::give_back_startup_pages();
  std::ostringstream text;  // Code of the C++ library, constants of the C library.
  text << 12345.5 << ' ' << std::hex << 255;
  EXPECT_EQ(text.str(), "12345.5 ff");
}

}  // namespace
