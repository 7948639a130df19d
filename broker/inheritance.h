// broker/inheritance.h: what an earlier broker has left for this one (keep.h), from the first look
// to the moment at which it is ours.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/audit/device_events.h"
#include "broker/config.h"
#include "broker/device.h"
#include "broker/event_loop.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/socket.h"
#include "common/fd.h"

namespace broker {

class Inheritance {
 public:
  // Looks whether there is any. Where a broker serves it, fails unless `config` says "take over";
  // that broker is not told yet.
  // `devices`: the names of all that are to be served, of the configuration or not.
  [[nodiscard]] static Answer<Inheritance> find(const BrokerConfig& config,
                                                std::vector<std::string> devices);
  Inheritance() = default;
  Inheritance(Inheritance&&) = default;
  Inheritance& operator=(Inheritance&&) = default;
  ~Inheritance() { remove_socket(door_); }

  // False: children end with this broker, by its configuration, or since there is no place where
  // another one could find what is kept.
  [[nodiscard]] bool wanted() const noexcept { return !path_.empty(); }
  [[nodiscard]] bool is_there() const noexcept { return link_.valid(); }
  // A broker serves it, and has what it keeps to itself, such as the audit log, until take_over().
  [[nodiscard]] bool is_owned() const noexcept { return owned_; }
  // Has that broker leave, with all that it cannot leave behind. Again: nothing.
  [[nodiscard]] Answer<void> make_way();
  // What could not be gone on with, and has ended: device, and why.
  struct Lost {
    std::string device;
    std::string why;
  };
  [[nodiscard]] std::vector<Lost> take_lost() { return std::exchange(lost_, {}); }
  // And their processes.
  struct Ended {
    std::string device;
    audit::Process process;
  };
  [[nodiscard]] std::vector<Ended> take_ended() { return std::exchange(ended_, {}); }
  // Sessions and workers.
  [[nodiscard]] std::size_t process_count() const noexcept;

  // What the device `name` has open; copies, if another broker serves it. Empty where there is
  // none.
  [[nodiscard]] std::vector<common::Fd> files_of(std::string_view name);
  // NetCardState of a card whose tap was kept, and nothing where it was not.
  [[nodiscard]] std::optional<std::vector<std::uint8_t>> card_of(std::string_view name) const;
  [[nodiscard]] std::optional<Listener> listener_of(const DeviceConfig& config);
  // The operator's; only if it is to be at `path` still.
  [[nodiscard]] std::optional<Listener> operators_listener(const std::string& path);
  // That the device's processes run as.
  [[nodiscard]] std::optional<std::uint32_t> uid_of(std::string_view name);
  [[nodiscard]] std::vector<std::uint32_t> uids() const;
  // What was kept with that record, of which there is no more than one.
  [[nodiscard]] std::optional<KeptThing> take(const KeptRecord& record);
  // What an operator of an earlier broker has said of the device.
  [[nodiscard]] Halt halt_of(std::string_view name) const;
  // Whether it has a session, or workers.
  [[nodiscard]] bool is_served(std::string_view name) const;
  // Its session and its workers, after take_over().
  [[nodiscard]] std::vector<KeptThing> connection_of(std::string_view name);

  // Where nothing is there: from here on another broker finds us. It waits until there is a keeper.
  [[nodiscard]] Answer<void> open_door();
  [[nodiscard]] Listener take_door() noexcept { return std::move(door_); }

  // The broker that serves has left when this returns.
  [[nodiscard]] Answer<std::unique_ptr<Keep>> take_over(EventLoop& loop, Jailer& jailer,
                                                        Keep::Events events);

  // What nobody has asked for ends, is closed, and its sockets are removed. `keep` may be null.
  void done(Keep* keep);

  // What is open as long as a device exists, into the keeper if it is not there.
  [[nodiscard]] Answer<KeptBacking> keep_backing(Keep& keep, const DeviceFacts& facts);
  // Nothing where `listener` is not valid.
  [[nodiscard]] Answer<Kept> keep_listener(Keep& keep, KeptType type, const std::string& name,
                                           const Listener& listener);

 private:
  [[nodiscard]] Answer<void> look();
  [[nodiscard]] Answer<void> wait_for_release();
  [[nodiscard]] Answer<void> read();
  [[nodiscard]] bool is_known(const KeptThing& thing) const;
  [[nodiscard]] Answer<void> refuse_what_is_lost() const;
  [[nodiscard]] Answer<void> end_what_is_lost();
  void note_lost_groups();
  void note_end(const KeptRecord& record);
  [[nodiscard]] std::vector<KeptThing>::iterator find_same(const KeptRecord& record);
  [[nodiscard]] std::optional<Listener> take_listener(KeptType type, std::string_view name,
                                                      const std::string& path);
  [[nodiscard]] KeptThing* find_thing(KeptType type, std::string_view name);
  [[nodiscard]] const KeptThing* find_thing(KeptType type, std::string_view name) const;
  // Disk or card.
  [[nodiscard]] const KeptThing* find_backing(std::string_view name) const;
  [[nodiscard]] Answer<KeptBacking> keep_card(Keep& keep, const DeviceFacts& facts);
  [[nodiscard]] Answer<Kept> keep_one(Keep& keep, const KeptRecord& record,
                                      const std::vector<common::FdRef>& fds);

  std::vector<std::string> devices_;
  std::string path_;
  KeeperLink link_;  // Until take_over().
  KeeperLink::Left left_;
  bool owned_ = false;
  std::set<Keep::Id> used_;  // Of what is in left_.
  std::set<Keep::Id> lost_groups_;
  std::vector<Lost> lost_;
  std::vector<Ended> ended_;
  Listener door_;
};

}  // namespace broker
