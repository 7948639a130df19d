# A host's own script: what `bulkhead` makes of this machine. $bin, $tests and $later are set before
# it, and the machine's settings made. Each line "@name text" is read by hosts.py.
mount -t cgroup2 cgroup /sys/fs/cgroup
truncate -s 8M /images/vda.img
serve="$bin/bulkhead blk --name=vda --blk-file=/images/vda.img --socket-path=/run/vda.sock"

# Waits for the line, or for the program's end.
wait_for() {  # text file pid
  until grep -q "$1" "$2" || ! kill -0 "$3" 2>/dev/null; do usleep 20000; done
}

: >/run/log
$serve --control-socket=/run/control.sock >/run/log 2>&1 &
broker=$!
wait_for "serving\|error" /run/log $broker
echo "@serving $(grep -m1 "serving\|error" /run/log)"

mkfifo /run/hold
: >/run/bench
$bin/bulkhead-bench --socket=/run/vda.sock --hold </run/hold >/run/bench 2>&1 &
bench=$!
exec 5>/run/hold
wait_for ready /run/bench $bench
# Through a file: a console loses nothing, but takes its time.
$bin/bulkhead posture --json --control-socket=/run/control.sock >/run/posture.json
echo "@posture $(cat /run/posture.json)"
exec 5>&-
wait $bench && echo "@held"
if [ -n "$later" ]; then
  wait_for "closed by the VMM" /run/log $broker
  sysctl -w "$later=2"
  $bin/bulkhead-bench --socket=/run/vda.sock --seconds=0.1 && echo "@later works"
  sysctl -w "$later=0"
fi
kill $broker
wait $broker
echo "@stopped $?"
sed 's/^/broker: /' /run/log

: >/run/strict
$serve --require-posture=strict >/run/strict 2>&1 &
broker=$!
wait_for "serving\|error" /run/strict $broker
kill $broker 2>/dev/null
wait $broker
echo "@strict $? $(grep -m1 "serving\|error" /run/strict)"

$bin/integration --gtest_brief=1 --gtest_filter="$tests" && echo "@io works"
exit 0
