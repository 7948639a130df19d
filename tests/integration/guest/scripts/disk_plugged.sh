# A second disk comes, goes and comes again. What was written at its first stay is there.
set -eux
for stay in 1 2; do
  echo bring-it
  (set +x; until [ -b /dev/vdb ]; do usleep 20000; done)
  test "$(ls /sys/block/vdb/mq | wc -l)" = 4
  if [ "$stay" = 1 ]; then
    mkfs.ext4 -q -F /dev/vdb
    mount /dev/vdb /mnt
    dd if=/dev/urandom of=/mnt/file bs=1M count=8 2>/dev/null
    md5sum </mnt/file >/tmp/sum
  else
    mount /dev/vdb /mnt
    md5sum </mnt/file | cmp - /tmp/sum
  fi
  umount /mnt
  e2fsck -fn /dev/vdb
  [ "$stay" = 1 ] || break
  echo take-it
  (set +x; while [ -b /dev/vdb ]; do usleep 20000; done)
done
