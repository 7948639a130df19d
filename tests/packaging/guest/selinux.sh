# In the machine of tests/packaging/vm-test: Bulkhead under SELinux, enforcing.
. /mnt/common.sh

denials() {
  journalctl --no-pager -o cat _TRANSPORT=audit + _TRANSPORT=kernel | grep 'avc: *denied' |
    grep bulkhead
}

label_image() { must chcon -t bulkhead_image_t "$1"; }

as_vmm() {
  level=$1
  shift
  runcon -l "$level" /bin/sh -c 'exec "$@"' sh "$@"
}

step "SELinux: enforcing $(cat /sys/fs/selinux/enforce), $(uname -r)"
[ "$(cat /sys/fs/selinux/enforce)" = 1 ] || wrong "SELinux does not enforce"
install_package
must semodule -i /mnt/bulkhead.pp /mnt/vmm.pp
must restorecon -RF /usr/bin/bulkhead /usr/bin/bulkhead-exporter /usr/libexec/bulkhead \
  /etc/bulkhead /run/bulkhead /var/lib/bulkhead /var/log/bulkhead
# What an administrator runs is no broker: here, where everything is started by init, a script that
# has init's scripts become him.
operator=/usr/local/bin/operator
printf '#!/bin/sh\nexec bulkhead "$@"\n' >$operator
must chmod 755 $operator
must chcon -t unconfined_exec_t $operator
make_tap tap0 bulkhead
add_card eth0 'tap_name = "tap0"' 'num_queues = 2'
sed -i 's/^require_posture.*/require_posture = "strict"/' /etc/bulkhead/bulkhead.toml
start_service
serve_example_and_card
for pid in $broker $children; do
  label=$(tr -d '\0' <"/proc/$pid/attr/current")
  kind=$(kind_of "$pid")
  echo "$kind: $label"
  case $kind:$label in
    bulkhead:system_u:system_r:bulkhead_t:*) ;;
    bulkhead-keeper:system_u:system_r:bulkhead_keeper_t:*) ;;
    bulkhead-session:system_u:system_r:bulkhead_session_t:s0:c1,c2) ;;
    bulkhead-session:system_u:system_r:bulkhead_session_t:s0:c3,c4) ;;
    bulkhead-worker-blk:system_u:system_r:bulkhead_worker_blk_t:s0:c1,c2) ;;
    bulkhead-worker-net:system_u:system_r:bulkhead_worker_net_t:s0:c3,c4) ;;
    *) wrong "not the domain of its kind, with the categories of its VMM" ;;
  esac
done
posture
end_front_end
operations
exporter
upgrade
load /run/bulkhead/example.sock
packets /run/bulkhead/eth0.sock tap0
other_cards
socket_activation
activated_card
stop_service
audit_log

step "denials in normal work"
if denials; then wrong "SELinux denied something"; else echo none; fi

for domain in bulkhead_exporter_t bulkhead_keeper_t bulkhead_session_t bulkhead_worker_blk_t \
  bulkhead_worker_net_t; do
  step "what $domain refuses, alone"
  /mnt/package_attempt --selinux=system_u:system_r:$domain:s0 || wrong "$domain allows too much"
done
step "what the categories of a VMM keep its worker from"
for level in s0:c1,c2 s0:c1,c3; do
  truncate -s 1M /var/lib/bulkhead/$level.img
  must chcon -l $level /var/lib/bulkhead/$level.img
done
/mnt/package_attempt --selinux=system_u:system_r:bulkhead_worker_blk_t:s0:c1,c2 \
  --own=/var/lib/bulkhead/s0:c1,c2.img --foreign=/var/lib/bulkhead/s0:c1,c3.img ||
  wrong "not what its categories say"
step "denials of the attempts: $(denials | wc -l)"
kernel_audit
remove_package
exit $failed
