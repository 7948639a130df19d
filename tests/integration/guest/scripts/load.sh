# Writes and verifies on vda for as long as nobody stops it.
set -eux
fio --name=load --filename=/dev/vda --size=16M --rw=randwrite --bs=4k --ioengine=libaio \
    --iodepth=32 --direct=1 --numjobs=4 --offset_increment=16M --time_based --runtime=600 \
    >/dev/null &
(set +x; while ! awk '$3 == "vda" { exit ($8 < 200) }' /proc/diskstats; do usleep 20000; done)
echo loaded
wait
