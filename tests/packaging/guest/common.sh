# Sourced by the scripts that tests/packaging/vm-test runs in the machine.
set -u
failed=0

step() { echo "== $*"; }
wrong() {
  echo "WRONG: $*"
  failed=1
}
must() { "$@" || wrong "$* (exit status $?)"; }

give_up() {
  wrong "$*"
  systemctl --no-pager --full status bulkhead
  journalctl --no-pager -n 60 -u bulkhead
  denials | tail -n 20
  exit 1
}

kind_of() { basename "$(readlink "/proc/$1/exe")"; }

install_package() {
  step "install"
  must dpkg -i /mnt/bulkhead.deb
  id bulkhead
}

# The machine has no iproute2.
ip() { /mnt/busybox ip "$@"; }

# make_tap NAME USER: with several queues, which only USER may open.
make_tap() {
  must perl -e '
    my ($name, $user) = @ARGV;
    open(my $tap, "+<", "/dev/net/tun") or die "/dev/net/tun: $!\n";
    ioctl($tap, 0x400454ca, pack("a16 s x22", $name, 0x0102)) or die "TUNSETIFF: $!\n";
    ioctl($tap, 0x400454cc, 0 + getpwnam($user)) or die "TUNSETOWNER: $!\n";
    ioctl($tap, 0x400454cb, 1) or die "TUNSETPERSIST: $!\n";' "$1" "$2"
  must ip link set "$1" up
}

# add_card NAME KEY [KEY]...: to what the service is told to serve.
add_card() {
  printf '[[device]]\ntype = "net"\nname = "%s"\nsocket_path = "/run/bulkhead/%s.sock"\n' "$1" "$1"
  shift
  printf '%s\n' "$@"
} >>/etc/bulkhead/bulkhead.toml

start_service() {
  step "systemctl start bulkhead"
  systemctl start bulkhead || give_up "the service does not start"
  broker=$(systemctl show -P MainPID bulkhead)
}

# as_vmm LEVEL COMMAND...: with an SELinux level, where there is one.
as_vmm() {
  shift
  "$@"
}

hold() {  # hold BENCH SOCKET [LEVEL]
  sleep 1000 | as_vmm "${3:-s0}" "/mnt/$1" --socket="$2" --hold >"/tmp/held.$1" 2>&1 &
  for _ in $(seq 300); do
    if grep -q ready "/tmp/held.$1"; then break; fi
    sleep 0.1
  done
  grep -q ready "/tmp/held.$1" || give_up "$1 is not served: $(cat "/tmp/held.$1")"
}

# Their queues are held while we look at the processes; then some load.
serve_example_and_card() {
  step "serve the example's disk, and a network card on a tap of user bulkhead"
  hold bulkhead-bench /run/bulkhead/example.sock s0:c1,c2
  hold bulkhead-net-bench /run/bulkhead/eth0.sock s0:c3,c4
  children=$(pgrep -P "$broker" | tr '\n' ' ')
  echo "broker $broker, children $children"
}

end_front_end() {
  pkill -x sleep
  wait
}

load() {
  for mode in randwrite randread; do
    must /mnt/bulkhead-bench --socket="$1" --mode=$mode --qd=4 --seconds=2 >/tmp/load 2>&1
    grep -E 'IOPS|requests|failed' /tmp/load || wrong "no load: $(cat /tmp/load)"
    grep -q '^failed  *0$' /tmp/load || wrong "requests failed"
  done
}

# packets SOCKET [TAP]: from the guest; with TAP also to it.
packets() {
  for mode in tx ${2:+rx}; do
    must /mnt/bulkhead-net-bench --socket="$1" --mode=$mode --seconds=1 ${2:+--tap="$2"} --fill=50 \
      >/tmp/packets 2>&1
    grep -E '^packets|^lost' /tmp/packets || wrong "no packets: $(cat /tmp/packets)"
    grep -q '^packets  *[1-9]' /tmp/packets || wrong "nothing got through"
  done
}

# A guest that keeps the example's disk busy, and must notice nothing. It ends with its stdin.
begin_load() {
  sleep 3000 | /mnt/bulkhead-bench --socket=/run/bulkhead/example.sock --mode=randwrite --qd=4 \
    --until-eof >/tmp/load 2>&1 &
  load_pid=$!
  for _ in $(seq 300); do
    if grep -q ready /tmp/load; then break; fi
    sleep 0.1
  done
}

end_load() {
  kill -0 $load_pid 2>/dev/null || wrong "the load has ended by itself: $(cat /tmp/load)"
  pkill -x sleep
  must wait $load_pid
  grep -E 'IOPS|requests|failed' /tmp/load || wrong "no load: $(cat /tmp/load)"
  grep -q '^failed  *0$' /tmp/load || wrong "requests failed"
}

# prints FRAGMENT COMMAND...: and not only that.
prints() {
  fragment=$1
  shift
  "$@" >/tmp/printed 2>&1 || wrong "$* (exit status $?): $(cat /tmp/printed)"
  grep -m 3 -e "$fragment" /tmp/printed ||
    wrong "$* prints no '$fragment': $(head -n 30 /tmp/printed)"
}

# The commands of README's operations, as they stand there. What follows the broker is stopped.
readme_operations() {
  bulkhead() {
    case $1 in
      events | top)
        timeout 10 ${operator:-bulkhead} "$@"
        [ $? = 124 ]
        ;;
      *) operator "$@" ;;
    esac
  }
  must mkdir -p /srv /var/lib/prometheus/node-exporter
  truncate -s 4M /srv/vdb.img
  chown bulkhead: /srv/vdb.img
  label_image /srv/vdb.img
  sed -n '/^## Operations/,/^## /p' /mnt/README.md | sed -n '/^```/,/^```/p' |
    sed -e '/^```/d' -e 's/  *#.*//' -e 's/; */\n/g' >/tmp/commands
  while read -r command; do
    echo "+ $command"
    eval "$command" >/tmp/printed 2>&1 </dev/null || wrong "$command: $(cat /tmp/printed)"
    head -n 4 /tmp/printed | cut -c1-160
  done </tmp/commands
  [ "$(wc -l </tmp/commands)" -ge 18 ] || wrong "README's operations are not where they were"
  unset -f bulkhead
}

operations() {
  step "operations"
  begin_load
  readme_operations
  prints '^example .*[1-9]' operator top --once
  prints '"devices_in_use":1,' operator status --json
  prints 'enforced' operator posture
  must operator limit example iops=100000 bps=500M
  prints '100000' operator limit example
  must operator limit example none
  # This kernel's taps do not suit rings, and the service has cgroups.
  prints 'eth0: would be served: .*; engine fallback (RWF_NOWAIT' operator check
  grep 'cgroup limits' /tmp/printed && wrong "check does not know the broker's cgroups"
  prints '^bulkhead_[a-z_]*requests[a-z_]*{device="example".*} [1-9]' operator metrics
  prints "type='vhostuser'" operator snippet example --for=libvirt
  prints 'vdb' operator events --once
  journalctl -b --no-pager | operator doctor | head -n 5
  end_load
}

exporter() {
  step "the exporter, for Prometheus"
  must systemctl start bulkhead-exporter.socket
  prints 'bulkhead_device_info{.*example' /mnt/busybox wget -q -O - http://127.0.0.1:9821/metrics
  exporter_pid=$(systemctl show -P MainPID bulkhead-exporter.service)
  echo "exporter: $(tr -d '\0' <"/proc/$exporter_pid/attr/current")"
}

# The same files as another version.
newer_package() {
  must dpkg-deb -R /mnt/bulkhead.deb /tmp/newer
  must sed -i 's/^Version: .*/&.1/' /tmp/newer/DEBIAN/control
  must dpkg-deb -Znone -b /tmp/newer /tmp/newer.deb
  rm -rf /tmp/newer
}

sessions() { pgrep -f '^bulkhead-session: ' | tr '\n' ' '; }

# await_broker BEFORE: until another one serves.
await_broker() {
  for _ in $(seq 600); do
    broker=$(systemctl show -P MainPID bulkhead)
    if [ "$broker" != "$1" ] && systemctl -q is-active bulkhead; then break; fi
    sleep 0.1
  done
  [ "$broker" != "$1" ] || give_up "no broker has followed $1"
  for _ in $(seq 100); do
    if operator status >/dev/null 2>&1; then break; fi
    sleep 0.1
  done
}

upgrade() {
  step "upgrade under load"
  newer_package
  truncate -s 8M /var/lib/bulkhead/vda.img
  chown bulkhead: /var/lib/bulkhead/vda.img
  must systemctl start bulkhead@vda.socket
  hold bulkhead-bench /run/bulkhead/vda.sock
  begin_load
  before=$broker sessions=$(sessions) one=$(systemctl show -P MainPID bulkhead@vda)
  must dpkg -i /tmp/newer.deb
  await_broker "$before"
  echo "broker $before, then $broker; sessions $sessions, then $(sessions)"
  [ "$(sessions)" = "$sessions" ] || wrong "a session did not go on"
  [ "$(systemctl show -P MainPID bulkhead@vda)" != "$one" ] || wrong "bulkhead@vda is the old one"
  must systemctl is-active bulkhead@vda
  step "a broker that is killed under load"
  before=$broker
  must kill -KILL "$broker"
  await_broker "$before"
  [ "$(sessions)" = "$sessions" ] || wrong "a session did not go on"
  prints 'example' operator list
  operator posture --pid="$broker" | grep -E 'cgroup limits' | sort | uniq -c
  end_load
  wait
  must systemctl stop bulkhead@vda.socket bulkhead@vda.service
}

# With the drop-ins that the package brings: a tap that is made, and a macvtap.
other_cards() {
  step "a tap that is made (net-admin.conf), and a macvtap (macvtaps.conf)"
  drop_ins=/etc/systemd/system/bulkhead.service.d
  must mkdir -p $drop_ins
  must cp /usr/share/doc/bulkhead/examples/net-admin.conf \
    /usr/share/doc/bulkhead/examples/macvtaps.conf $drop_ins
  must mkdir -p /run/udev/rules.d
  echo 'SUBSYSTEM=="macvtap", GROUP="kvm", MODE="0660"' >/run/udev/rules.d/70-macvtap.rules
  udevadm control --reload
  must modprobe dummy
  ip link add dummy0 type dummy
  must ip link set dummy0 up
  must ip link add link dummy0 name macvtap0 type macvtap
  must ip link set macvtap0 up
  udevadm settle
  add_card eth1 'tap_name = "tap1"' 'tap_create = true' 'num_queues = 2'
  add_card eth2 'macvtap = "macvtap0"' 'num_queues = 2'
  must systemctl daemon-reload
  systemctl restart bulkhead || give_up "the service does not start with the drop-ins"
  broker=$(systemctl show -P MainPID bulkhead)
  grep CapEff "/proc/$broker/status"
  packets /run/bulkhead/eth1.sock
  packets /run/bulkhead/eth2.sock
}

# What SIGUSR1 has it log, from the first session on.
logged_posture() {
  journalctl --no-pager -o cat -u bulkhead | sed -n '/^session [0-9]/,/^[a-z0-9]*: /p'
}

label_image() { :; }

# What an administrator would run. Under SELinux init's scripts are no administrators.
operator() { command ${operator:-bulkhead} "$@"; }

posture() {
  step "posture"
  operator posture --pid="$broker" >/tmp/posture || wrong "bulkhead posture"
  sed -n '1,/^$/p' /tmp/posture
  # This kernel's, whatever a package does: it has an old Landlock, and no mdwe, mseal or core
  # scheduling.
  not_there='^ *(landlock|mdwe|mseal|core scheduling) '
  sed -n '/^session/,$p' /tmp/posture | grep -E ' (absent|degraded) ' | grep -v -E "$not_there" &&
    wrong "a layer is missing"
  kill -USR1 "$broker"
  for _ in $(seq 100); do
    if logged_posture | sed -n '/^worker/,$p' | grep -q '^ *seccomp '; then break; fi
    sleep 0.1
  done
  step "layers that its processes found missing"
  logged_posture | grep -E ' (absent|degraded) ' | sort | uniq -c
  logged_posture | grep -E ' (absent|degraded) ' | grep -v -E "$not_there" &&
    wrong "a layer is missing under the service"
  # One table for all processes that are alike: one of sessions, one of workers.
  [ "$(logged_posture | grep -c -E '^ *user namespace  *enforced')" -ge 2 ] ||
    wrong "the log does not show that sessions and workers forbid user namespaces"
  for pid in $broker $children; do
    echo "$(kind_of "$pid"): $(grep Seccomp_filters "/proc/$pid/status")"
  done
}

# A tap that belongs to user bulkhead is all that a card needs.
activated_card() {
  step "bulkhead@card.socket"
  make_tap tap9 bulkhead
  printf 'KIND=net\nOPTIONS=--tap-name=tap9\n' >/etc/bulkhead/card.env
  must systemctl start bulkhead@card.socket
  packets /run/bulkhead/card.sock tap9
  must systemctl is-active bulkhead@card.service
  must systemctl stop bulkhead@card.socket bulkhead@card.service
  rm /etc/bulkhead/card.env
}

socket_activation() {
  step "bulkhead@vda.socket"
  truncate -s 8M /var/lib/bulkhead/vda.img
  chown bulkhead: /var/lib/bulkhead/vda.img
  must systemctl start bulkhead@vda.socket
  stat -c '%a %U:%G %n' /run/bulkhead/vda.sock
  load /run/bulkhead/vda.sock
  must systemctl is-active bulkhead@vda.service
  must systemctl stop bulkhead@vda.socket bulkhead@vda.service
}

# What all of the above has left in the package's own audit log.
audit_log() {
  step "audit log"
  log=/var/log/bulkhead/audit.log
  stat -c '%a %U:%G %n' $log
  grep -o '"event":"[a-z-]*"' $log | sort | uniq -c
  must operator audit verify $log
  must mv $log $log.1
  must systemctl start bulkhead
  must systemctl stop bulkhead
  must operator audit verify $log $log.1
}

# With a drop-in that the package brings. The machine has auditd, which others' tools read from.
kernel_audit() {
  step "the kernel's audit log (kernel-audit.conf), auvirt and ausearch"
  uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8
  mkdir -p /etc/systemd/system/bulkhead.service.d
  must cp /usr/share/doc/bulkhead/examples/kernel-audit.conf /etc/systemd/system/bulkhead.service.d
  sed -i -e 's/^audit_log.*/&\naudit_kernel = "all"\naudit = "required"/' \
    -e 's/^name = "example"/&\nvm_name = "web"\nvm_uuid = "'$uuid'"/' /etc/bulkhead/bulkhead.toml
  must systemctl daemon-reload
  must systemctl unmask auditd
  must systemctl start auditd
  start_service
  grep CapEff "/proc/$broker/status"
  load /run/bulkhead/example.sock
  must systemctl stop bulkhead
  auvirt --all-events --uuid $uuid | tee /tmp/auvirt
  for what in '^start  *web' '^resrc  *web.*disk.*attach.*/var/lib/bulkhead/example.img' \
    '^stop  *web'; do
    grep -q "$what" /tmp/auvirt || wrong "auvirt does not show '$what'"
  done
  ausearch --uuid $uuid -m VIRT_RESOURCE -i | tail -n 3
  ausearch --uuid $uuid -m VIRT_RESOURCE -i | grep -q 'reason=worker-started' ||
    wrong "ausearch does not show a worker"
  aureport --virt --summary | tail -n 5
  step "what the broker was denied beside it"
  ausearch -m AVC,APPARMOR_DENIED -i | grep "pid=$broker " && wrong "denied"
}

stop_service() {
  step "stop"
  must systemctl stop bulkhead
  journalctl --no-pager -o cat -u bulkhead | grep -v -E '^ |^$|^(PID|[0-9]+ )' | tail -n 30
  [ "$(systemctl show -P Result bulkhead)" = success ] || wrong "the service did not end well"
}

# Whatever runs ends first.
remove_package() {
  step "purge"
  must systemctl start bulkhead bulkhead-exporter.socket bulkhead@vda.socket
  hold bulkhead-bench /run/bulkhead/vda.sock
  must dpkg --purge bulkhead
  end_front_end
  ps -e -o comm= | grep '^bulkhead' && wrong "processes go on without their files"
  for left in /etc/bulkhead /usr/libexec/bulkhead /etc/apparmor.d/bulkhead \
    /var/lib/bulkhead/example.img /etc/logrotate.d/bulkhead /var/log/bulkhead; do
    if [ -e "$left" ]; then wrong "left behind: $left"; fi
  done
}
