# Files both ways until another device is plugged in. Each connection outlives a migration.
set -eux
bring_up
devices() { ls /sys/bus/pci/devices | wc -l; }
before=$(devices)
set +x
while [ "$(devices)" = "$before" ]; do
  transfer 3000017
  echo transferred
done
