# Memory is plugged in while requests are in flight. The new memory must work for requests, too.
set -eux
verify() {
  fio --name=verify --filename=/dev/vda --size=16M --rw=randwrite --bs=4k --ioengine=libaio \
      --iodepth=32 --direct=1 --numjobs=4 --offset_increment=16M \
      --verify=crc32c --do_verify=1 --verify_fatal=1 "$@" >/dev/null
}
total_kib() { awk '/^MemTotal/ { print $2 }' /proc/meminfo; }
add_memory() (
  set +x
  while [ "$(total_kib)" = "$1" ]; do
    for state in /sys/devices/system/memory/memory*/state; do
      # Movable: what user programs allocate, buffers for requests included, is put there first.
      grep -q online "$state" || echo online_movable >"$state" || true
    done
    usleep 20000
  done
)
before=$(total_kib)
verify --loops=3 &
(set +x; while ! awk '$3 == "vda" { exit ($8 < 200) }' /proc/diskstats; do usleep 20000; done)
echo loaded
add_memory "$before"
wait $!
test "$(total_kib)" -gt "$before"
mkdir /big
mount -t tmpfs big /big
dd if=/dev/urandom of=/big/file bs=1M count=64 2>/dev/null
dd if=/big/file of=/dev/vda bs=1M oflag=direct conv=notrunc 2>/dev/null
test "$(dd if=/dev/vda bs=1M count=64 iflag=direct 2>/dev/null | md5sum)" = "$(md5sum </big/file)"
verify
