# vda grows from 64 MiB to 96 MiB while fio verifies what it writes.
set -eux
size() { cat /sys/class/block/vda/size; }
before=$(size)
fio --name=verify --filename=/dev/vda --size=32M --rw=randwrite --bs=4k --ioengine=libaio \
    --iodepth=8 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 >/dev/null &
(set +x; while ! awk '$3 == "vda" { exit ($8 < 100) }' /proc/diskstats; do usleep 20000; done)
echo working
(set +x; while [ "$(size)" = "$before" ]; do usleep 20000; done)
echo "sectors $(size)"
wait $!
dd if=/dev/urandom of=/tmp/new bs=1M count=32 2>/dev/null
dd if=/tmp/new of=/dev/vda bs=1M seek=64 oflag=direct 2>/dev/null
dd if=/dev/vda of=/tmp/again bs=1M skip=64 iflag=direct 2>/dev/null
cmp /tmp/new /tmp/again
