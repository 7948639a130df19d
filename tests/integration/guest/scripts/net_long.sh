# The back-end stops and starts again in the middle of this.
set -eux
bring_up
(set +x; for i in 1 2 3 4 5 6 7 8 9 10; do
  transfer 3000017
  [ $i != 2 ] || echo transferring
done)
