// tests/unit/broker/scratch.h: a directory of a test's own, and files in it.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/fakes/temp_dir.h"

namespace broker {

class Scratch {
 public:
  [[nodiscard]] std::string file(std::string_view name) const {
    return dir_.file(std::string(name));
  }
  std::string write(std::string_view name, std::string_view text) const {
    std::ofstream(file(name)) << text;
    return file(name);
  }
  // A sparse file of that size.
  std::string image(std::string_view name, std::uintmax_t bytes) const {
    const std::string path = write(name, "");
    std::filesystem::resize_file(path, bytes);
    return path;
  }

 private:
  fakes::TempDir dir_ = fakes::TempDir::for_sockets();
};

}  // namespace broker
