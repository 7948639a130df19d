# vda: 4096-byte blocks. vdb: read-only ext4 with /known. vdc: empty, for fstrim.
# vdd: full of data, of which the first quarter is discarded and the second zeroed.
set -eux
test "$(cat /sys/block/vda/queue/logical_block_size)" = 4096
mkfs.ext4 -q -F /dev/vda
mount /dev/vda /mnt
fio --name=verify --directory=/mnt --size=8M --rw=randwrite --bs=4k --ioengine=libaio \
    --iodepth=16 --direct=1 --numjobs=2 --verify=crc32c --do_verify=1 --verify_fatal=1 >/dev/null
umount /mnt
e2fsck -fn /dev/vda

test "$(cat /sys/block/vdb/ro)" = 1
mount -t ext4 -o ro /dev/vdb /mnt
test "$(cat /mnt/known)" = "what the host wrote"
! touch /mnt/new
umount /mnt
! dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync

test "$(cat /sys/block/vdc/queue/discard_max_bytes)" -gt 0
mkfs.ext4 -q -F -E nodiscard /dev/vdc
mount /dev/vdc /mnt
dd if=/dev/urandom of=/mnt/gone bs=1M count=32 conv=fsync 2>/dev/null
rm /mnt/gone
sync
fstrim -v /mnt
umount /mnt
e2fsck -fn /dev/vdc

test "$(cat /sys/block/vdd/queue/write_zeroes_max_bytes)" -gt 0
# By its path: the shell would take busybox's own, which cannot write zeroes.
/bin/blkdiscard -o 0 -l 16M /dev/vdd
/bin/blkdiscard -z -o 16M -l 16M /dev/vdd
dd if=/dev/vdd bs=1M skip=16 count=16 2>/dev/null | cmp -n 16777216 - /dev/zero
