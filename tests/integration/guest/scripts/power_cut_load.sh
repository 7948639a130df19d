# Four writers, each on its own file system objects, say what they were told is on the disk. The
# variables fs, cache and files come from power_cut.py.
set -eu
[ "$cache" = "write back" ] || echo "$cache" >/sys/block/vda/cache_type
mount -t "$fs" /dev/vda /mnt

content() {
  yes "writer $1 file $2" | head -c $((2000 + 1531 * $2))
}

writer() {
  number=0
  while [ $number -lt "$files" ]; do
    content "$1" $number | dd of="/mnt/new-$1" conv=fsync bs=64k 2>/dev/null
    mv "/mnt/new-$1" "/mnt/$1-$number"
    # Every other time by name, every other time all of the file system.
    if [ $((number % 2)) = 0 ]; then sync -f /mnt; else fsync_directory; fi
    echo "synced $1 $number"
    # In place, and never seen half done: one block.
    printf '%-4096s' "$number" | dd of="/mnt/state-$1" conv=notrunc,fsync bs=4096 2>/dev/null
    echo "state $1 $number"
    if [ $((number % 5)) = 4 ]; then rm "/mnt/$1-$((number - 4))"; fi
    number=$((number + 1))
  done
}

# A file's fsync() makes the renames that came before it durable, too.
fsync_directory() {
  dd if=/dev/zero of="/mnt/tick" conv=fsync bs=1 count=1 2>/dev/null
}

for each in a b c d; do writer $each & done
wait
fstrim /mnt || true
umount /mnt
