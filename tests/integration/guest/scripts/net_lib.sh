# What the network tests have in common. The host's servers: network.py.
host=192.0.2.1

bring_up() {
  ip link set eth0 up
  ip addr add 192.0.2.2/24 dev eth0
  ping -q -c 1 -W 30 $host >/dev/null
}

# A file to the host, and one from it: both arrive as they were.
transfer() {
  head -c "$1" /dev/urandom >/tmp/out
  test "$(nc $host 5001 </tmp/out)" = "$(md5sum </tmp/out | cut -d' ' -f1)"
  nc $host 5002 </dev/null >/tmp/in
  test "$(tail -c +33 /tmp/in | md5sum | cut -d' ' -f1)" = "$(head -c 32 /tmp/in)"
}
