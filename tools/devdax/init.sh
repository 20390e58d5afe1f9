#!/bin/busybox sh
# First process of the guest: modules, the namespace, the host's root over 9p, the command, the end.
export PATH=/bin
/bin/busybox mkdir -p /bin /sbin /usr /proc /sys /dev /io /lower /upper /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t debugfs debugfs /sys/kernel/debug

setting() { sed -n "s/.* holdfast\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
fail() {
  echo "guest: $*" > /dev/kmsg
  [ -e /io/run ] && echo "$*" > /io/setup-error
  sync
  poweroff -f
}
# Devices come up a moment after what makes them.
await() {
  i=0
  while [ ! -e "$1" ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i + 1)); done
  [ -e "$1" ] || fail "$1 did not appear"
}

while read -r module parameters; do
  insmod "/modules/$module" $parameters 2> /dev/null
done < /modules/list
P9=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o $P9,cache=none io /io || fail "the share for input and output cannot be mounted"

# The namespace in devdax mode, through sysfs alone. Its region is not always number 0: the one of
# memory that is set aside may come first.
ALIGN=$(setting align)
BUS=/sys/bus/nd
await "$BUS/devices/ndbus0"
i=0
until set -- $BUS/devices/region* && [ -e "$1" ] || [ $i -ge 100 ]; do
  sleep 0.05; i=$((i + 1))
done
REGION=${1##*/region}
SPACE=namespace$REGION.0
await $BUS/devices/$SPACE
if [ ! -e /dev/dax$REGION.0 ]; then
  [ -e $BUS/devices/$SPACE/driver ] && echo $SPACE > $BUS/devices/$SPACE/driver/unbind
  seed=$(cat $BUS/devices/region$REGION/dax_seed)
  cat /proc/sys/kernel/random/uuid > $BUS/devices/$seed/uuid || fail "uuid of $seed"
  echo "$ALIGN" > $BUS/devices/$seed/align || fail "align of $seed"
  echo ram > $BUS/devices/$seed/mode || fail "mode of $seed"
  echo $SPACE > $BUS/devices/$seed/namespace || fail "namespace of $seed"
  echo "$seed" > $BUS/drivers/dax_pmem/bind || fail "bind of $seed"
fi
await /dev/dax$REGION.0

# The host's root with a tmpfs on top: everything can be written, nothing reaches the host.
mount -t 9p -o $P9,ro,cache=loose root /lower || fail "the share of the root cannot be mounted"
mount -t tmpfs -o size=75% tmpfs /upper
mkdir /upper/changes /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work overlay /root ||
  fail "the overlay cannot be mounted"
R=/root
mkdir -p $R/proc $R/sys $R/dev $R/tmp $R/run
mount -t proc proc $R/proc
mount --bind /sys $R/sys
mount -t debugfs debugfs $R/sys/kernel/debug
mount --bind /dev $R/dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts $R/dev/pts
mount -t tmpfs shm $R/dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs run $R/run
mkdir -p $R/run/host $R/run/modules
mount --bind /io $R/run/host
cp /modules/*.ko $R/run/modules
ifconfig lo 127.0.0.1 up

HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  chroot $R /bin/sh /run/host/run > /io/stdout 2> /io/stderr < /dev/null
echo $? > /io/status.new
dmesg > /io/dmesg
mv /io/status.new /io/status
sync
poweroff -f
