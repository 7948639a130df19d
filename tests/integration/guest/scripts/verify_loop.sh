# Writes vda and reads it back again and again, and must notice nothing of what happens outside.
set -eux
(set +x; while ! awk '$3 == "vda" { exit ($8 < 200) }' /proc/diskstats; do usleep 20000; done
 echo verifying) &
for round in 1 2 3 4; do
  fio --name=verify --filename=/dev/vda --size=16M --rw=randwrite --bs=4k --ioengine=libaio \
      --iodepth=16 --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 >/dev/null
done
