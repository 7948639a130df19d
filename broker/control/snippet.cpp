#include "broker/control/snippet.h"

#include <algorithm>
#include <array>

#include "broker/setting_values.h"
#include "broker/text.h"

namespace broker::control {
namespace {

using common::DeviceKind;

constexpr std::uint32_t kQueues = 4;  // As many as the guest has processors is best.
constexpr std::uint32_t kPairs = 2;
constexpr std::uint32_t kQueueSize = 256;

struct Facts {
  const DeviceConfig& device;
  std::string socket;
  std::uint32_t queues;  // Of a card: pairs.
  std::uint32_t queue_size;

  [[nodiscard]] bool net() const { return device.kind == DeviceKind::kNet; }
  [[nodiscard]] bool vmm_listens() const { return device.client; }
};

std::string number(std::uint32_t value) { return std::to_string(value); }

// --- how each of them writes a value -------------------------------------------------------------

std::string replaced(std::string_view text, char from, std::string_view to) {
  std::string all;
  for (const char character : text) {
    if (character == from) {
      all += to;
    } else {
      all += character;
    }
  }
  return all;
}

bool is_plain(char character) {
  constexpr std::string_view kPlain = "/._-+:@%=,";
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
         (character >= '0' && character <= '9') || kPlain.find(character) != kPlain.npos;
}

std::string for_shell(const std::string& word) {
  if (std::all_of(word.begin(), word.end(), is_plain)) return word;
  return "'" + replaced(word, '\'', R"('\'')") + "'";
}

std::string for_xml(std::string_view text) {
  std::string all = replaced(text, '&', "&amp;");
  all = replaced(all, '<', "&lt;");
  return replaced(all, '\'', "&apos;");
}

std::string for_json(std::string_view text) {
  return replaced(replaced(text, '\\', R"(\\)"), '"', R"(\")");
}

// What identifiers of all of them may consist of.
std::string identifier(const Facts& facts) {
  std::string id = "bulkhead-" + facts.device.name;
  for (char& character : id) {
    const bool fine = is_plain(character) &&
                      std::string_view("/+:@%=,").find(character) == std::string_view::npos;
    if (!fine) character = '-';
  }
  return id;
}

// --- QEMU ----------------------------------------------------------------------------------------

std::string qemu(const Facts& facts) {
  const std::string id = identifier(facts);
  std::string chardev = "socket,id=" + id + ",path=" + replaced(facts.socket, ',', ",,");
  chardev += facts.vmm_listens() ? ",server=on,wait=off" : ",reconnect=1";
  std::string text =
      "# QEMU. The memory must be shared; 1G stands for the guest's in both places.\n";
  if (!facts.vmm_listens()) text += "# QEMU 9.2 and later: reconnect-ms=1000 for reconnect=1.\n";
  text +=
      "-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on \\\n"
      "-machine q35,memory-backend=mem \\\n"
      "-chardev " +
      for_shell(chardev) + " \\\n";
  if (!facts.net()) {
    return text + "-device vhost-user-blk-pci,chardev=" + id +
           ",num-queues=" + number(facts.queues) + ",queue-size=" + number(facts.queue_size) + "\n";
  }
  text += "-netdev vhost-user,id=" + id + "-net,chardev=" + id + ",queues=" + number(facts.queues) +
          " \\\n-device virtio-net-pci,netdev=" + id + "-net";
  if (facts.queues > 1) text += ",mq=on";
  if (facts.device.mac) text += ",mac=" + mac_text(*facts.device.mac);
  return text + "\n";
}

// --- libvirt -------------------------------------------------------------------------------------

std::string libvirt_disk(const Facts& facts, const std::string& reconnect) {
  const bool named = facts.device.name.size() > 2 && facts.device.name.starts_with("vd") &&
                     std::all_of(facts.device.name.begin(), facts.device.name.end(),
                                 [](char letter) { return letter >= 'a' && letter <= 'z'; });
  return "<disk type='vhostuser' device='disk'>\n  <driver name='qemu' type='raw' queues='" +
         number(facts.queues) + "' queue_size='" + number(facts.queue_size) +
         "'/>\n  <source type='unix' path='" + for_xml(facts.socket) + "'>\n    " + reconnect +
         "\n  </source>\n  <target dev='" + (named ? facts.device.name : "vda") +
         "' bus='virtio'/>\n</disk>\n";
}

std::string libvirt_card(const Facts& facts, const std::string& reconnect) {
  const std::string mac =
      facts.device.mac ? "  <mac address='" + mac_text(*facts.device.mac) + "'/>\n" : std::string();
  const std::string path = "  <source type='unix' path='" + for_xml(facts.socket) + "' mode='";
  const std::string source = facts.vmm_listens()
                                 ? path + "server'/>\n"
                                 : path + "client'>\n    " + reconnect + "\n  </source>\n";
  return "<interface type='vhostuser'>\n" + mac + source +
         "  <model type='virtio'/>\n  <driver queues='" + number(facts.queues) +
         "'/>\n</interface>\n";
}

std::string libvirt_device(const Facts& facts) {
  const std::string reconnect = "<reconnect enabled='yes' timeout='1'/>";
  return facts.net() ? libvirt_card(facts, reconnect) : libvirt_disk(facts, reconnect);
}

constexpr std::string_view kSharedMemory =
    "<memoryBacking>\n  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n";

std::string libvirt(const Facts& facts) {
  // libvirt counts the memory of NUMA nodes in hugepages alone (qemuProcessStartWarnShmem).
  const std::string_view warning =
      facts.net() ? "<!-- It may warn of an 'interface without any shared memory': with these "
                    "lines it is. -->\n"
                  : "";
  return "<!-- libvirt. Into <domain>: the guest's memory must be shared. -->\n" +
         std::string(warning) + std::string(kSharedMemory) + "<!-- Into <devices>. -->\n" +
         libvirt_device(facts);
}

// --- the others ----------------------------------------------------------------------------------

Answer<std::string> without_commas(const Facts& facts, std::string_view vmm) {
  if (facts.socket.find(',') == std::string::npos) return facts.socket;
  return common::fail(std::string(vmm) + " takes a comma for the end of " +
                      in_quotes(facts.socket) + "; give the device a socket_path without one");
}

Answer<std::string> cloud_hypervisor(const Facts& facts) {
  TRY_LET(const std::string socket, without_commas(facts, "Cloud Hypervisor"));
  std::string text =
      "# Cloud Hypervisor. 1G stands for the guest's memory. It refuses more queues, or pairs of\n"
      "# a card's, than --cpus boot=N.\n"
      "--memory size=1G,shared=on \\\n";
  if (facts.net()) {
    // It counts virtqueues, not pairs.
    std::string net = "vhost_user=true,socket=" + socket +
                      ",num_queues=" + number(2 * facts.queues) +
                      ",queue_size=" + number(facts.queue_size);
    if (facts.device.mac) net += ",mac=" + mac_text(*facts.device.mac);
    if (facts.vmm_listens()) net += ",vhost_mode=server";
    return text + "--net " + for_shell(net) + "\n";
  }
  return text + "--disk " +
         for_shell("vhost_user=on,socket=" + socket + ",num_queues=" + number(facts.queues) +
                   ",queue_size=" + number(facts.queue_size)) +
         "\n";
}

Answer<std::string> crosvm(const Facts& facts) {
  TRY_LET(const std::string socket, without_commas(facts, "crosvm"));
  const std::string kind = facts.net() ? "net" : "block";
  // Its queues have 32768 entries where nothing is said.
  return "# crosvm. It shares the guest's memory by itself, and connects once.\ncrosvm run "
         "--vhost-user " +
         for_shell(kind + ",socket=" + socket + ",max-queue-size=" + number(facts.queue_size)) +
         " ...\n";
}

Answer<std::string> firecracker(const Facts& facts) {
  if (facts.net()) {
    return common::fail(
        std::string("Firecracker has no vhost-user network cards; give it the tap"));
  }
  std::string id = identifier(facts);
  std::ranges::replace_if(
      id, [](char letter) { return letter == '-' || letter == '.'; }, '_');
  const std::string body = R"({"drive_id": ")" + id + R"(", "is_root_device": false, "socket": ")" +
                           for_json(facts.socket) + R"("})";
  return "# Firecracker, to its API socket before the guest starts; or the same object in "
         "\"drives\" "
         "of\n# its --config-file. One queue. It connects once, and takes no snapshots with such a "
         "drive.\n# No rate_limiter: limits are the back-end's, 'bulkhead limit " +
         facts.device.name +
         " iops=N iops-burst=N bps=N bps-burst=N'.\n# A bucket's size is a burst, and size / "
         "refill_time the rate; nothing is like one_time_burst.\ncurl --unix-socket "
         "/run/firecracker.sock -X PUT http://localhost/drives/" +
         id + " \\\n  -H 'Content-Type: application/json' \\\n  -d " + for_shell(body) + "\n";
}

std::string indented(std::string_view text, std::size_t spaces) {
  std::string all;
  bool begins = true;
  for (const char character : text) {
    if (begins) all.append(spaces, ' ');
    all += character;
    begins = character == '\n';
  }
  return all;
}

Answer<std::string> kubevirt(const Facts& facts) {
  const std::string id = identifier(facts);
  // Its own disks have names from vda on, and hugepages a memoryBacking that is not shared.
  const std::string script = R"py(#!/bin/sh
# $4 is the domain as KubeVirt has made it.
python3 - "$4" <<'END'
import re
import sys
domain = sys.argv[1]
memory = """)py" + std::string(kSharedMemory) +
                             R"py("""
device = """)py" + libvirt_device(facts) +
                             R"py("""
taken = re.findall("<target dev=['\"](\w+)", domain)
free = next(name for name in map("vd{}".format, "abcdefghijklmnopqrstuvwxyz") if name not in taken)
device = re.sub("target dev='[a-z]+'", f"target dev='{free}'", device)
if "<memoryBacking>" not in domain:
    domain = domain.replace("<devices>", memory + "<devices>", 1)
elif "<access mode=" not in domain:
    domain = domain.replace("<memoryBacking>", memory.split("</memoryBacking>")[0], 1)
print(domain.replace("</devices>", device + "</devices>", 1))
END
)py";
  return "# KubeVirt has no field for vhost-user devices: a hook (feature gate Sidecar) adds what "
         "libvirt\n# is to be told. The socket must be at the same path in the compute container "
         "of "
         "virt-launcher.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " +
         id + "\ndata:\n  attach.sh: |\n" + indented(script, 4) +
         "---\n# Into the VirtualMachine:\nspec:\n  template:\n    metadata:\n      annotations:\n"
         "        hooks.kubevirt.io/hookSidecars: >-\n"
         "          [{\"args\": [\"--version\", \"v1alpha2\"],\n"
         "            \"configMap\": {\"name\": \"" +
         id +
         "\", \"key\": \"attach.sh\",\n                          \"hookPath\": "
         "\"/usr/bin/onDefineDomain\"}}]\n";
}

Answer<std::string> kata(const Facts& facts) {
  if (facts.net()) {
    return common::fail(
        std::string("Kata Containers takes vhost-user network cards from its CNI plugins only"));
  }
  const std::string id = identifier(facts);
  const std::string store = "/var/run/kata-containers/vhost-user/block";
  return "# Kata Containers with QEMU. Into configuration.toml, [hypervisor.qemu]:\n"
         "enable_vhost_user_store = true\n"
         "vhost_user_store_path = \"/var/run/kata-containers/vhost-user\"\n"
         "vhost_user_reconnect_timeout_sec = 1  # Of the Go runtime; runtime-rs does not know it.\n"
         "enable_hugepages = true  # Which shares the guest's memory.\n"
         "# On the host: the socket, and a node of a reserved major number that stands for it.\n"
         "mkdir -p " +
         store + "/sockets " + store + "/devices\nln -s " + for_shell(facts.socket) + " " + store +
         "/sockets/" + id + "\nmknod " + store + "/devices/" + id +
         " b 241 0\n# The container is given that node:\nctr run --runtime io.containerd.kata.v2 "
         "--device " +
         store + "/devices/" + id + " ...\n";
}

}  // namespace

Answer<std::string> snippet_for(const DeviceConfig& device, std::string_view vmm) {
  if (device.socket_path.empty()) {
    return common::fail("device " + in_quotes(device.name) +
                        " was handed its socket, whose path is not known here; its VMM has it");
  }
  const bool net = device.kind == DeviceKind::kNet;
  const Facts facts{device, device.socket_path,
                    std::min(device.num_queues.value_or(kQueues), net ? kPairs : kQueues),
                    std::min(queue_size_of(device), kQueueSize)};
  if (facts.vmm_listens() && !net && vmm != "qemu") {
    return common::fail("device " + in_quotes(device.name) +
                        " connects to its VMM (client = true), which " + std::string(vmm) +
                        " cannot wait for; leave client out");
  }
  if (vmm == "qemu") return qemu(facts);
  if (vmm == "libvirt") return libvirt(facts);
  if (vmm == "cloud-hypervisor") return cloud_hypervisor(facts);
  if (vmm == "firecracker") return firecracker(facts);
  if (vmm == "crosvm") return crosvm(facts);
  if (vmm == "kubevirt") return kubevirt(facts);
  if (vmm == "kata") return kata(facts);
  return common::fail("give --for=" + std::string(kVmms));
}

}  // namespace broker::control
