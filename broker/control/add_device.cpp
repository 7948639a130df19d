#include "broker/control/add_device.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "broker/control/device_record.h"
#include "common/ipc/channel.h"

namespace broker::control {
namespace {

std::string absolute(const std::string& path) {
  std::error_code error;
  if (path.empty() || path.front() == '/') return path;
  return std::filesystem::absolute(path, error).string();
}

}  // namespace

DeviceConfig with_absolute_paths(DeviceConfig device) {
  device.socket_path = absolute(device.socket_path);
  device.blk_file = absolute(device.blk_file);
  return device;
}

Answer<void> add_device(Client& client, DeviceConfig device, AddFlags flags) {
  device = with_absolute_paths(std::move(device));
  AddDevice request;
  request.replace = flags.replace ? 1 : 0;
  request.force = flags.force ? 1 : 0;
  request.from_file = flags.from_file ? 1 : 0;
  request.device = record_of(device);
  std::vector<common::FdRef> fds;
  if (device.fd >= 0) fds.push_back({device.fd});
  for (const int number : device.tap_fds) fds.push_back({number});
  if (fds.size() > common::ipc::kFdListMax) {
    return common::fail("at most " + std::to_string(common::ipc::kFdListMax) +
                        " descriptors can be passed to a running broker; give the tap's name");
  }
  TRY(client.order(request, fds, flags.replace ? end_takes(flags.force) : Client::Duration{}));
  return {};
}

}  // namespace broker::control
