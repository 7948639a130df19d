# The host takes the tap down and up; then this guest reboots, and is killed.
set -eux
bring_up
boot=$(nc $host 5003 </dev/null)
transfer 300007
if [ "$boot" = 1 ]; then
  ethtool -L eth0 combined 2
  echo take-it-down
  (set +x; while ping -q -c 1 -W 1 $host >/dev/null; do :; done)
  echo bring-it-up
  ping -q -c 1 -W 30 $host || ping -q -c 1 -W 30 $host
  transfer 300007
  reboot -f
fi
echo second-boot
(set +x; while true; do transfer 1000003; done) &
echo kill-me
wait
