"""`bulkhead snippet`: QEMU connects with the lines it is given, libvirt's schema accepts its own,
and what is JSON or shell can be read as that."""

import json
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from tools import ToolError, problems_of, run

PATIENCE_S = 60
CONFIG = """
[[device]]
type = "blk"
name = "vda"
socket_path = "{place}/vda.sock"
blk_file = "{place}/vda.img"
num_queues = 2

[[device]]
type = "net"
name = "eth0"
socket_path = "{place}/eth0.sock"
tap_name = "tap0"
mac = "52:54:00:12:34:56"
"""
DOMAIN = """<domain type='kvm'>
  <name>x</name>
  <memory unit='MiB'>128</memory>
  {memory}
  <os><type arch='x86_64'>hvm</type></os>
  <devices>{devices}</devices>
</domain>
"""
QUIT = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'


def snippet(bin_dir, place: Path, device: str, vmm: str) -> str:
    return run([bin_dir / "bulkhead", "snippet", device, f"--for={vmm}",
                f"--config={place / 'bulkhead.toml'}"])


def libvirt_problems(bin_dir, place: Path) -> list:
    for device in ("vda", "eth0"):
        memory, devices = snippet(bin_dir, place, device, "libvirt").split("<!-- Into <devices>")
        domain = place / f"{device}.xml"
        domain.write_text(DOMAIN.format(memory=memory[memory.index("<memoryBacking"):],
                                        devices=devices[devices.index("-->") + 3:]))
        run(["virt-xml-validate", domain, "domain"])
    return []


def words_of(text: str) -> list:
    """As a shell would have them."""
    return shlex.split(text.replace("\\\n", " "), comments=True)


def qemu_problems(bin_dir, place: Path) -> list:
    """The guest does not run; QEMU ends with an error where the device cannot be had."""
    (place / "vda.img").write_bytes(bytes(1 << 20))
    broker = subprocess.Popen([bin_dir / "bulkhead", "blk", "--name=vda",
                               f"--socket-path={place / 'vda.sock'}",
                               f"--blk-file={place / 'vda.img'}", "--num-queues=2"],
                              stderr=subprocess.PIPE, text=True)
    try:
        said = next((line for line in broker.stderr if ": serving " in line), None)
        if said is None:
            return ["the broker does not start"]
        words = words_of(snippet(bin_dir, place, "vda", "qemu").replace("1G", "128M"))
        done = subprocess.run(["qemu-system-x86_64", "-accel", "tcg", "-S", "-nodefaults",
                               "-display", "none", "-qmp", "stdio", *words], input=QUIT, text=True,
                              capture_output=True, timeout=PATIENCE_S, check=False)
        if done.returncode != 0:
            return [f"QEMU refuses {words}: {done.stderr.strip()}"]
        came = next((line for line in broker.stderr if "connection from" in line), None)
        return [] if came else ["QEMU did not connect"]
    except FileNotFoundError as error:
        raise ToolError("qemu-system-x86_64 is not installed: packaging/build-deps test") from error
    finally:
        broker.terminate()
        broker.wait()


# What has been looked up, and where. libvirt and QEMU are tried.
#   Cloud Hypervisor: DiskConfig::SYNTAX, NetConfig::SYNTAX and validate() (vmm/src/config.rs):
#     vhost_user, socket, num_queues, queue_size, mac, vhost_mode=client|server; memory shared=on
#   Firecracker: docs/api_requests/block-vhost-user.md: drive_id, socket, is_root_device
#   crosvm: struct VhostUserFrontendOption (src/crosvm/config.rs): type, socket, max-queue-size
#   Kata: docs/use-cases/using-SPDK-vhostuser-and-kata.md: enable_hugepages, the store's options and
#     directories, major 241; docs/design/migrating-config-go-runtime-to-runtime-rs.md
#   KubeVirt: user-guide, docs/user_workloads/hook-sidecar.md: the annotation, v1alpha2, configMap
#     with name, key and hookPath; the domain is the script's $4
def other_problems(bin_dir, place: Path) -> list:
    problems = []
    fire = words_of(snippet(bin_dir, place, "vda", "firecracker"))
    drive = json.loads(fire[fire.index("-d") + 1])
    address = f"http://localhost/drives/{drive['drive_id']}"
    if drive["socket"] != f"{place}/vda.sock" or fire[5] != address:
        problems.append(f"Firecracker is told of {drive}")
    for device, vmm, wanted in (("vda", "cloud-hypervisor", "vhost_user=on,"),
                                ("eth0", "cloud-hypervisor", "num_queues=4,"),
                                ("vda", "crosvm", "block,socket="),
                                ("vda", "crosvm", ",max-queue-size=256"),
                                ("eth0", "crosvm", "net,socket="),
                                ("vda", "kata", "/block/sockets/bulkhead-vda"),
                                ("eth0", "qemu", "mac=52:54:00:12:34:56")):
        if not any(wanted in word for word in words_of(snippet(bin_dir, place, device, vmm))):
            problems.append(f"{vmm}, {device}: no {wanted}")
    hook = snippet(bin_dir, place, "vda", "kubevirt")
    note = re.search(r"hookSidecars: >-\n(.*)", hook, re.DOTALL)
    if f"  {json.loads(note[1])[0]['configMap']['key']}: |" not in hook:
        problems.append("KubeVirt is told of a script that is not there")
    script = hook.split("attach.sh: |\n")[1].split("---")[0]
    return problems + hook_problems("\n".join(line[4:] for line in script.splitlines()), place)


def hook_problems(script: str, place: Path) -> list:
    """The disk beside those of KubeVirt's own domain, in memory that is shared."""
    disk = """<disk type="file" device="disk"><source file="/x"/><target dev="vda" bus="virtio"/>
      </disk>"""
    problems = []
    for memory in ("", "<memoryBacking>\n<hugepages/></memoryBacking>",
                   "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"):
        text = run(["sh", "-c", script, "hook", "--vmi", "{}", "--domain",
                    DOMAIN.format(memory=memory, devices=disk)])
        domain = place / "kubevirt.xml"
        domain.write_text(text)
        run(["virt-xml-validate", domain, "domain"])
        for wanted in ("<access mode='shared'/>", "<target dev='vdb' bus='virtio'/>"):
            if text.count(wanted) != 1:
                problems.append(f"KubeVirt's domain has no {wanted}: {text}")
    return problems


@problems_of
def check_snippets(root, bin_dir) -> list:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "bulkhead.toml").write_text(CONFIG.format(place=place))
        return (libvirt_problems(bin_dir, place) + other_problems(bin_dir, place) +
                qemu_problems(bin_dir, place))
