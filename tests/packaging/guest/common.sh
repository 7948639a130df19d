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

start_service() {
  step "systemctl start bulkhead"
  systemctl start bulkhead || give_up "the service does not start"
  broker=$(systemctl show -P MainPID bulkhead)
}

# One queue, held while we look at the processes; then some load.
serve_example() {
  step "serve the example's disk"
  sleep 1000 | /mnt/bulkhead-bench --socket=/run/bulkhead/example.sock --hold >/tmp/held 2>&1 &
  for _ in $(seq 300); do
    if grep -q ready /tmp/held; then break; fi
    sleep 0.1
  done
  grep -q ready /tmp/held || give_up "the front-end is not served: $(cat /tmp/held)"
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

posture() {
  step "posture"
  ${posture_tool:-bulkhead} posture --pid="$broker" >/tmp/posture || wrong "bulkhead posture"
  sed -n '1,/^$/p' /tmp/posture
  # Absent on this kernel, whatever a package does: mdwe and mseal are newer than it.
  sed -n '/^session/,$p' /tmp/posture | grep -E ' (absent|degraded) ' && wrong "a layer is missing"
  kill -USR1 "$broker"
  for pid in $broker $children; do
    echo "$(kind_of "$pid"): $(grep Seccomp_filters "/proc/$pid/status")"
  done
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

stop_service() {
  step "stop"
  must systemctl stop bulkhead
  journalctl --no-pager -o cat -u bulkhead | grep -v -E '^ |^$|^(PID|[0-9]+ )' | tail -n 30
  [ "$(systemctl show -P Result bulkhead)" = success ] || wrong "the service did not end well"
}

remove_package() {
  step "purge"
  must dpkg --purge bulkhead
  for left in /etc/bulkhead /usr/libexec/bulkhead /etc/apparmor.d/bulkhead \
    /var/lib/bulkhead/example.img; do
    if [ -e "$left" ]; then wrong "left behind: $left"; fi
  done
}
