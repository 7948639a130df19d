# Works on vda until another device is plugged in. What the disk wrote into memory some time ago is
# looked at only later: it must have come along.
set -eux
mkfs.ext4 -q -F /dev/vda
mount /dev/vda /mnt
dd if=/dev/urandom of=/mnt/known bs=1M count=8 2>/dev/null
sum=$(md5sum </mnt/known)
sync
devices() { ls /sys/bus/pci/devices | wc -l; }
before=$(devices)
round=0
set +x
while [ "$(devices)" = "$before" ]; do
  echo 3 >/proc/sys/vm/drop_caches
  cat /mnt/known >/dev/null
  fio --name=verify --directory=/mnt --size=4M --rw=randwrite --bs=4k --ioengine=libaio \
      --iodepth=16 --direct=1 --numjobs=2 --verify=crc32c --do_verify=1 --verify_fatal=1 >/dev/null
  test "$(md5sum </mnt/known)" = "$sum"
  round=$((round + 1))
  echo "round $round"
done
umount /mnt
e2fsck -fn /dev/vda
