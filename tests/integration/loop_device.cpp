#include "tests/integration/loop_device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <utility>

namespace integration {
namespace {

constexpr int kAttempts = 50;  // Others take loop devices at the same time.

}  // namespace

LoopDevice::LoopDevice(const std::string& image) {
  const common::Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  const common::Fd file(::open(image.c_str(), O_RDWR | O_CLOEXEC));
  if (!control.valid() || !file.valid()) return;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ::ioctl(control.ref().number, LOOP_CTL_GET_FREE);
    if (number < 0) return;
    path_ = "/dev/loop" + std::to_string(number);
    common::Fd device(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    if (!device.valid()) return;
    if (::ioctl(device.ref().number, LOOP_SET_FD, file.ref().number) == 0) {
      device_ = std::move(device);
      return;
    }
    if (errno != EBUSY) return;
  }
}

LoopDevice::~LoopDevice() {
  if (device_.valid()) ::ioctl(device_.ref().number, LOOP_CLR_FD);
}

}  // namespace integration
