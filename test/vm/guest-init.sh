#!/bin/busybox sh
# The machine's first program: mounts what run.sh shares, lays a root of RAM over it, goes on there.
export PATH=/bin:/sbin
/bin/busybox mkdir -p /proc /sys /dev /lower /rw /newroot
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
version=$(uname -r)
for module in virtio_pci virtio_console virtiofs overlay virtio_blk; do
  modprobe $module 2>/dev/null
done
. /vm/boot.conf
fail() {
  echo "guest-init: $*"
  sleep 0.2
  poweroff -f
}
mount -t virtiofs -o ro root /lower || fail "no share of the root"
mount -t tmpfs -o size=75%,mode=755 tmpfs /rw
mkdir -p /rw/up /rw/work /rw/layer/usr/sbin
for tool in modprobe insmod rmmod lsmod modinfo depmod; do
  ln -sf "$BUSYBOX" /rw/layer/usr/sbin/$tool
done
options=lowerdir=/rw/layer:/lower,upperdir=/rw/up,workdir=/rw/work
mount -t overlay -o $options overlay /newroot || fail "no overlay"
for folder in proc sys dev run "lib/modules/$version"; do mkdir -p "/newroot/$folder"; done
mount -o bind "/lower$MODULES" "/newroot/lib/modules/$version" || fail "no modules"
mount -t tmpfs -o mode=755 tmpfs /newroot/run
mkdir -p /newroot/run/vm
cp -a /vm/. /newroot/run/vm/
for folder in proc sys dev; do mount --move /$folder /newroot/$folder; done
exec switch_root /newroot /bin/bash /run/vm/guest-main.sh
