# A file system on vda from scratch to fsck.
set -eux
mkfs.ext4 -q -F /dev/vda
mount /dev/vda /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8 conv=fsync 2>/dev/null
umount /mnt
e2fsck -fn /dev/vda
