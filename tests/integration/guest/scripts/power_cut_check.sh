# Disks as the power left them: each must mount, have all that was promised, and be sound. The lines
# of "expected" come from power_cut.py: disk, writer, files promised, state promised.
set -eu
content() {
  yes "writer $1 file $2" | head -c $((2000 + 1531 * $2))
}

for device in $(echo "$expected" | cut -d' ' -f1 | uniq); do
  mount -t "$fs" "/dev/$device" /mnt
  echo "$expected" | grep "^$device " >/tmp/promises
  while read -r _ writer promised state; do
    number=0
    while [ $number -lt "$promised" ]; do
      # Removed later, maybe.
      if [ $((number % 5)) != 0 ] || [ -e "/mnt/$writer-$number" ]; then
        content "$writer" $number | cmp -s - "/mnt/$writer-$number" ||
          { echo "LOST: $device: file $number of writer $writer"; exit 1; }
      fi
      number=$((number + 1))
    done
    if [ "$state" -ge 0 ]; then
      found=$(head -c 4096 "/mnt/state-$writer" | tr -d ' ')
      [ "$found" -ge "$state" ] ||
        { echo "LOST: $device: state of writer $writer is $found, not $state"; exit 1; }
    fi
  done </tmp/promises
  umount /mnt
  case $fs in
    ext4) e2fsck -fn "/dev/$device" >/tmp/check 2>&1 || { cat /tmp/check; exit 1; } ;;
    xfs) xfs_repair -n "/dev/$device" >/tmp/check 2>&1 || { cat /tmp/check; exit 1; } ;;
  esac
  echo "sound $device"
done
