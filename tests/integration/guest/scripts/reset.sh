# Boots three times on the same disk: empty; after a reset from outside in the middle of a load;
# after a reboot of its own. What was synced before the reset must be there.
set -eux
if ! mount -t ext4 /dev/vda /mnt 2>/dev/null; then
  mkfs.ext4 -q -F /dev/vda
  mount /dev/vda /mnt
  dd if=/dev/urandom of=/mnt/kept bs=1M count=8 2>/dev/null
  md5sum </mnt/kept >/mnt/sum
  sync
  fio --name=load --directory=/mnt --size=8M --rw=randwrite --bs=4k --ioengine=libaio \
      --iodepth=16 --direct=1 --numjobs=4 --time_based --runtime=600 >/dev/null &
  (set +x; while ! [ -s /mnt/load.3.0 ]; do usleep 20000; done)
  echo first-boot-loaded
  wait
fi
test "$(md5sum </mnt/kept)" = "$(cat /mnt/sum)"
if ! [ -e /mnt/second ]; then
  touch /mnt/second
  umount /mnt
  echo second-boot-done
  reboot -f
fi
umount /mnt
e2fsck -fn /dev/vda
echo third-boot-done
