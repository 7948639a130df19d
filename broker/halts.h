// broker/halts.h: which devices operators have stopped or drained, kept for the broker's next start
// in the state directory: a file for each, since there are many devices and few of these.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/kept_record.h"

namespace broker {

class Halts {
 public:
  // `directory` empty: nothing is kept.
  explicit Halts(std::string directory) : directory_(std::move(directory)) {}

  // kNone: it is served again, or gone. The file need not be there.
  [[nodiscard]] Answer<void> keep(const std::string& device, Halt halt) const;

  struct Kept {
    std::map<std::string, Halt> halts;
    std::vector<std::string> complaints;
  };
  [[nodiscard]] Kept read() const;

 private:
  [[nodiscard]] std::string file_of(const std::string& device) const;

  std::string directory_;
};

}  // namespace broker
