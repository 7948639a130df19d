// broker/open_file.h: what the kernel knows of a file that is open.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/fd.h"

namespace broker {

// Its path now, links resolved; " (deleted)" after one that is gone. Empty where it has none that
// we may see.
[[nodiscard]] std::string path_of(common::FdRef file);

// Which device it is; 0 where it is none.
[[nodiscard]] dev_t rdev_of(common::FdRef file) noexcept;

}  // namespace broker
