# After another guest was killed on the same card.
set -eux
bring_up
ethtool -L eth0 combined 2
transfer 1000003
