# In the machine of tests/packaging/vm-test: Bulkhead under an enforcing AppArmor.
. /mnt/common.sh

denials() {
  journalctl --no-pager -o cat _TRANSPORT=audit + _TRANSPORT=kernel | grep 'apparmor="DENIED"'
}

step "AppArmor: $(cat /sys/module/apparmor/parameters/enabled), $(uname -r)"
install_package
grep bulkhead /sys/kernel/security/apparmor/profiles
make_tap tap0 bulkhead
add_card eth0 'tap_name = "tap0"' 'num_queues = 2'
sed -i 's/^require_posture.*/require_posture = "strict"/' /etc/bulkhead/bulkhead.toml
start_service
serve_example_and_card
for pid in $broker $children; do
  label=$(cat "/proc/$pid/attr/apparmor/current")
  kind=$(kind_of "$pid")
  echo "$kind: $label"
  case $kind:$label in
    'bulkhead:bulkhead (enforce)') ;;
    'bulkhead-keeper:bulkhead//&bulkhead-keeper (enforce)') ;;
    'bulkhead-session:bulkhead//&bulkhead-session (enforce)') ;;
    'bulkhead-worker-blk:bulkhead//&bulkhead-worker-blk (enforce)') ;;
    'bulkhead-worker-net:bulkhead//&bulkhead-worker-net (enforce)') ;;
    *) wrong "not the profile of its kind" ;;
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
if denials; then wrong "AppArmor denied something"; else echo none; fi

for profile in bulkhead-exporter bulkhead-keeper bulkhead-session bulkhead-worker-blk \
  bulkhead-worker-net; do
  step "what $profile refuses, alone"
  /mnt/package_attempt --apparmor=$profile || wrong "$profile allows what it must not"
done
step "denials of the attempts: $(denials | wc -l)"
kernel_audit
remove_package
exit $failed
