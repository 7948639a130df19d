# The broker in a cgroup that was delegated to it: $bin is set before this.
set -e
mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+memory +pids +cpu +io" >/sys/fs/cgroup/cgroup.subtree_control
tree=/sys/fs/cgroup/bulkhead.service
device=$tree/device-vda
mkdir $tree
truncate -s 64M /images/vda.img

fail() { echo "FAILED: $*"; cat /run/log; exit 1; }
# Waits until the command succeeds; the guest's time limit ends it.
until_true() { until eval "$1"; do usleep 20000; done; }

: >/run/log
sh -c "echo 0 >$tree/cgroup.procs; exec $bin/bulkhead blk --name=vda --blk-file=/images/vda.img \
  --socket-path=/run/vda.sock --control-socket=/run/control.sock --memory-max=24M --pids-max=60 \
  --cpu-max=150 --limit=write-bps=100M --require-posture=strict" >>/run/log 2>&1 &
broker=$!
until_true 'grep -q "serving\|error" /run/log'
grep serving /run/log || fail "it does not serve"
grep -q "cgroup limits" /run/log && fail "the layer is not enforced"

echo "- limits"
[ "$(cat $device/memory.max)" = $((24 << 20)) ] || fail "memory.max"
[ "$(cat $device/pids.max)" = 60 ] || fail "pids.max"
[ "$(cat $device/cpu.max)" = "150000 100000" ] || fail "cpu.max"
disk=$(cat /sys/block/vda/dev)
# The burst of 100 ms is added, so that only a worker that cheats meets it.
[ "$(cat $device/io.max)" = "$disk rbps=max wbps=110000000 riops=max wiops=max" ] ||
  fail "io.max: $(cat $device/io.max)"
$bin/bulkhead limit vda none --control-socket=/run/control.sock
[ -z "$(cat $device/io.max)" ] || fail "io.max, without limits: $(cat $device/io.max)"

echo "- where processes are"
mkfifo /run/hold
: >/run/bench
$bin/bulkhead-bench --socket=/run/vda.sock --queues=4 --hold </run/hold >/run/bench 2>&1 &
bench=$!
exec 5>/run/hold
until_true 'grep -q ready /run/bench'
grep -qx $broker $tree/broker/cgroup.procs || fail "the broker is not in its leaf"
[ "$(wc -l <$device/session/cgroup.procs)" = 1 ] || fail "the session is not in its leaf"
[ "$(wc -l <$device/workers/cgroup.procs)" = 4 ] || fail "workers are not in their leaf"
$bin/bulkhead posture --control-socket=/run/control.sock >/run/posture
grep "cgroup limits" /run/posture
[ "$(grep -c "cgroup limits *enforced .*device-vda, memory.max 25165824, pids.max 60" \
  /run/posture)" = 2 ] || fail "posture"

echo "- a worker that dies is born there again"
victim=$(head -n 1 $device/workers/cgroup.procs)
kill -9 $victim
until_true "! grep -qx $victim $device/workers/cgroup.procs"
until_true "[ \$(grep -c . $device/workers/cgroup.procs) = 4 ]"
echo "four idle queues: $(cat $device/memory.current) bytes, $(cat $device/pids.current) pids"
exec 5>&-
wait $bench
until_true 'grep -q "closed by the VMM" /run/log'
$bin/bulkhead-bench --socket=/run/vda.sock --queues=4 --qd=8 --seconds=0.3 --mode=randwrite
echo "used at most: $(cat $device/memory.peak 2>/dev/null || echo ?) bytes"

echo "- what runs there cannot have more, whatever else it may"
# Sleepers, each a process of the workers' cgroup, until there may be none.
cat >/run/forks <<'END'
echo 0 >$1/cgroup.procs
made=0
while [ $made -lt 200 ]; do
  sleep 1000 &
  made=$((made + 1))
done
END
sh /run/forks $device/workers >/run/forked 2>&1 || true
grep -q "can't fork" /run/forked || fail "200 processes: $(cat /run/forked)"
[ "$(cat $device/pids.current)" -le 60 ] || fail "pids.current"
for pid in $(cat $device/workers/cgroup.procs); do kill -9 $pid; done
until_true "[ -z \"\$(cat $device/workers/cgroup.procs)\" ]"
mkdir /run/memory
mount -t tmpfs memory /run/memory
sh -c "echo 0 >$device/workers/cgroup.procs
  exec dd if=/dev/zero of=/run/memory/file bs=1M count=48" && fail "it got 48 MiB"
grep -q "oom_kill [1-9]" $device/memory.events || fail "memory.events: $(cat $device/memory.events)"
umount /run/memory
echo "$(cat /sys/block/vda/dev) wbps=1048576 wiops=max" >$device/io.max || fail "io.max"

echo "- a device that goes takes its cgroup along"
$bin/bulkhead remove vda --force --control-socket=/run/control.sock
[ -e $device ] && fail "the cgroup of a device that was removed is still there"
kill $broker
wait $broker || fail "the broker ended with $?"

echo "- one of a broker that was killed is taken away by the next, which is told where its tree is"
mkdir -p $tree/device-old/workers
: >/run/log
$bin/bulkhead blk --name=vda --blk-file=/images/vda.img --socket-path=/run/vda.sock --cgroup=$tree \
  >>/run/log 2>&1 &
broker=$!
until_true 'grep -q "serving\|error" /run/log'
grep -q "engine" /run/log || fail "it does not serve"
[ -e $tree/device-old ] && fail "a leftover"
grep -q bulkhead.service/broker /proc/$broker/cgroup || fail "$(cat /proc/$broker/cgroup)"
echo "default: pids.max $(cat $device/pids.max), memory.max $(cat $device/memory.max)"
$bin/bulkhead-bench --socket=/run/vda.sock --queues=4 --qd=8 --seconds=0.2
grep -q Cpu /run/log && fail "$(cat /run/log)"
kill $broker
wait $broker
grep -i "refused\|not permitted" /run/log && fail "the broker was refused something"
ls $tree | grep device- && fail "a cgroup is left"
exit 0
