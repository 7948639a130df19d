# In the machine of tests/packaging/vm-test: Bulkhead under SELinux, enforcing.
. /mnt/common.sh

denials() {
  journalctl --no-pager -o cat _TRANSPORT=audit + _TRANSPORT=kernel | grep 'avc: *denied' |
    grep bulkhead
}

step "SELinux: enforcing $(cat /sys/fs/selinux/enforce), $(uname -r)"
[ "$(cat /sys/fs/selinux/enforce)" = 1 ] || wrong "SELinux does not enforce"
install_package
must semodule -i /mnt/bulkhead.pp /mnt/vmm.pp
must restorecon -RF /usr/bin/bulkhead /usr/libexec/bulkhead /etc/bulkhead /run/bulkhead \
  /var/lib/bulkhead /var/log/bulkhead
# What an administrator runs is no broker: here, where everything is started by init, another file.
posture_tool=/usr/local/bin/posture
cp /usr/bin/bulkhead $posture_tool
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
    bulkhead-session:system_u:system_r:bulkhead_session_t:*) ;;
    bulkhead-worker-blk:system_u:system_r:bulkhead_worker_blk_t:*) ;;
    bulkhead-worker-net:system_u:system_r:bulkhead_worker_net_t:*) ;;
    *) wrong "not the domain of its kind" ;;
  esac
done
posture
end_front_end
load /run/bulkhead/example.sock
packets /run/bulkhead/eth0.sock tap0
other_cards
stop_service
audit_log

step "denials in normal work"
if denials; then wrong "SELinux denied something"; else echo none; fi

for domain in bulkhead_session_t bulkhead_worker_blk_t bulkhead_worker_net_t; do
  step "what $domain refuses, alone"
  /mnt/package_attempt --selinux=system_u:system_r:$domain:s0 || wrong "$domain allows too much"
done
step "denials of the attempts: $(denials | wc -l)"
kernel_audit
remove_package
exit $failed
