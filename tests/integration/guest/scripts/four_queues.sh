# vda: four queues, to be formatted. vdb: a known image, the second disk of the same broker.
set -eux
test "$(ls /sys/block/vda/mq | wc -l)" = 4
test "$(ls /sys/block/vdb/mq | wc -l)" = 4
echo "serials $(cat /sys/block/vda/serial) $(cat /sys/block/vdb/serial)"
echo "vdb-md5 $(md5sum </dev/vdb | cut -d' ' -f1)"

mkfs.ext4 -q -F /dev/vda
mount /dev/vda /mnt
echo load-begins
# One job on each processor, so that every queue carries requests.
fio --name=verify --directory=/mnt --size=12M --rw=randwrite --bsrange=4k-64k --bs_unaligned=0 \
    --ioengine=libaio --iodepth=16 --direct=1 --numjobs=4 \
    --cpus_allowed=0-3 --cpus_allowed_policy=split \
    --verify=crc32c --do_verify=1 --verify_fatal=1 --group_reporting --output-format=terse \
    >/tmp/fio
grep -q '^3;fio' /tmp/fio
dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null
sum=$(md5sum </mnt/file)
sync
echo 3 >/proc/sys/vm/drop_caches
test "$(md5sum </mnt/file)" = "$sum"
# CONFIG_WCE: the driver may ask for writes that are durable when they complete.
echo "cache $(cat /sys/block/vda/cache_type)"
echo "write through" >/sys/block/vda/cache_type
test "$(cat /sys/block/vda/queue/write_cache)" = "write through"
dd if=/dev/urandom of=/mnt/through bs=1M count=4 oflag=direct 2>/dev/null
umount /mnt
e2fsck -fn /dev/vda

grep virtio0-req /proc/interrupts
# Each queue had its interrupts.
test "$(awk '/virtio0-req/ && $2 + $3 + $4 + $5 > 0' /proc/interrupts | wc -l)" = 4
