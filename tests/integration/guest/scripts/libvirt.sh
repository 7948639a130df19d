# A guest of libvirt's: a disk vda of two queues with its serial number, and a card.
set -eux
test "$(ls /sys/block/vda/mq | wc -l)" = 2
test "$(cat /sys/block/vda/serial)" = serial-vda
test "$(cat /sys/class/net/eth0/address)" = 52:54:00:12:34:56
bring_up
mkfs.ext4 -q -F /dev/vda
mount /dev/vda /mnt
head -c 4000000 /dev/urandom >/mnt/file
sum=$(md5sum </mnt/file)
set +x
echo first-half
# The broker is started again meanwhile.
for i in $(seq 40); do
  dd if=/dev/urandom of=/mnt/$i bs=64k count=1 oflag=direct 2>/dev/null
done
set -x
sync
echo 3 >/proc/sys/vm/drop_caches
test "$(md5sum </mnt/file)" = "$sum"
umount /mnt
e2fsck -fn /dev/vda
transfer 500009
