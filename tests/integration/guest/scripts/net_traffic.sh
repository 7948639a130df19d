# Two pairs of queues: pings, iperf3 and files both ways, with each combination of offloads and
# numbers of channels.
set -eux
bring_up
ethtool -l eth0
ethtool -L eth0 combined 2
test "$(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)" -ge 2
ping -q -c 20 -i 0.05 -W 10 $host
ping -q -c 5 -i 0.05 -s 1472 -W 10 $host
ping -q -c 5 -i 0.05 -s 30000 -W 10 $host
for bytes in 0 1 17 100 1000 1460 1461; do
  ping -q -c 1 -s $bytes -W 10 $host >/dev/null
done

load() {
  iperf3 -c $host -t 2 "$@" >/tmp/iperf 2>&1 || { cat /tmp/iperf; false; }
  grep -E 'receiver$' /tmp/iperf | tail -n 1
}
load -P 4
load -P 4 -R
load -u -b 20M -l 1400
load -u -b 20M -l 1400 -R

set +x
for tx in on off; do
  for tso in on off; do
    for gso in on off; do
      for gro in on off; do
        for uso in on off; do
          ethtool -K eth0 tx $tx tso $tso gso $gso gro $gro >/dev/null 2>&1
          ethtool -K eth0 tx-udp-segmentation $uso >/dev/null 2>&1 || true
          transfer 1000003
        done
        echo "tx $tx tso $tso gso $gso gro $gro"
      done
    done
  done
done
set -x
ethtool -K eth0 tx on tso on gso on gro on
ethtool -k eth0

for channels in 1 2 1 2; do
  ethtool -L eth0 combined $channels
  ping -q -c 5 -i 0.05 -W 10 $host
  transfer 500009
  load -P 4
done
ip link set eth0 down
ip link set eth0 up
transfer 100003
