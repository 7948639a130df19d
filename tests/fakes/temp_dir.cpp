#include "tests/fakes/temp_dir.h"

#include <cstdlib>
#include <filesystem>
#include <utility>

#include "tests/fakes/failure.h"

namespace fakes {

TempDir::TempDir(const std::string& parent) : path_(parent + "/bh-XXXXXX") {
  std::filesystem::create_directories(parent);
  require_call(::mkdtemp(path_.data()) != nullptr, "make a directory in " + parent);
  std::filesystem::permissions(path_, std::filesystem::perms(0755));  // Some tests drop root.
}

TempDir TempDir::for_sockets() { return TempDir("/tmp"); }

TempDir::~TempDir() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace fakes
