// A tap that an earlier broker has opened, whose queues serve a guest: nothing is done to it here.
#include <net/if.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "broker/net_card_state.h"
#include "broker/open_tap.h"
#include "broker/tap_steps.h"
#include "broker/text.h"
#include "common/device_kind.h"

namespace broker {

using common::fail;

std::string source_of(const DeviceConfig& config) {
  if (!config.tap_fds.empty()) return "--tap-fd";
  if (!config.macvtap.empty()) return "--macvtap=" + config.macvtap;
  return "--tap-name=" + config.tap_name;
}

Answer<NetCardState> read_card_state(std::span<const std::byte> bytes) {
  NetCardState state{};
  if (bytes.size() < sizeof(state)) return fail("what was kept of its card is too short");
  std::memcpy(&state, bytes.data(), sizeof(state));
  const bool sound = state.name.back() == '\0' && state.source.back() == '\0' && state.pairs >= 1 &&
                     state.pairs <= common::kNetPairsMax && state.pairs_used <= state.pairs &&
                     static_cast<int>(state.index) >= 0;
  if (!sound) return fail("what was kept of its card is not sound");
  return state;
}

// It may have got another name, or have gone, while nobody looked.
Answer<Tap> adopt_tap(const DeviceConfig& config, std::vector<common::Fd> queues,
                      const NetCardState& state) {
  const std::string source = source_of(config);
  if (source.substr(0, state.source.size() - 1) != state.source.data()) {
    return fail("what is served is " + clean_text(state.source.data()) + ", and not " +
                clean_text(source) +
                "; end that first (bulkhead takeover with the old "
                "configuration, then SIGTERM), or give the same");
  }
  Tap tap;
  tap.left = true;
  tap.queues = std::move(queues);
  if (tap.queues.size() != state.pairs) return fail("not all queues of its tap were kept");
  tap.name = state.name.data();
  tap.macvtap = state.macvtap != 0;
  tap.multiqueue = state.multiqueue != 0;
  tap.nowait = state.nowait != 0;
  tap.offloads = state.offloads;
  tap.mtu = state.mtu;
  std::copy(state.mac.begin(), state.mac.end(), tap.mac.begin());
  if (state.index != 0) {
    std::array<char, IF_NAMESIZE> name{};
    tap.index = static_cast<int>(state.index);
    tap.up = false;
    if (::if_indextoname(state.index, name.data()) != nullptr) tap.name = name.data();
    TRY_LET(const auto link, look_up_link(tap.name));
    if (link && link->index == tap.index) describe_tap(tap, *link);
  }
  identify_tap(tap);
  return tap;
}

}  // namespace broker
