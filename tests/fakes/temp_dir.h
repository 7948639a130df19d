// tests/fakes/temp_dir.h: a directory that ends with the test.
#pragma once

#include <cstdint>
#include <string>

namespace fakes {

class TempDir {
 public:
  // Under `parent`, which is made if need be.
  explicit TempDir(const std::string& parent);
  // Where sockets go: short, since a socket's path may have 107 bytes at most.
  static TempDir for_sockets();
  TempDir(TempDir&& other) noexcept : path_(std::move(other.path_)) { other.path_.clear(); }
  TempDir& operator=(TempDir&&) = delete;
  ~TempDir();

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace fakes
