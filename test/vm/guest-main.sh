#!/usr/bin/env bash
# The machine's process 1, on the tree of the machine that runs the tests: makes what systemd and
# udev would make, runs the command, tells its status and switches off.
. /run/vm/boot.conf    # BUSYBOX, MODULES
. /run/vm/command.conf # arrays and words of run.sh
exec </dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd
for name in stdin:0 stdout:1 stderr:2; do ln -sfn "fd/${name#*:}" "/dev/${name%:*}"; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t configfs configfs /sys/kernel/config 2>/dev/null
mkdir -p /run/lock /run/vm/bin /run/vm/out /var/lock
mount -t tmpfs -o mode=1777 tmpfs /run/lock
ln -sfn /proc/self/mounts /etc/mtab
echo vm >/proc/sys/kernel/hostname
echo /usr/sbin/modprobe >/proc/sys/kernel/modprobe
ulimit -n 65536
ulimit -c 0

ports=/dev/virtio-ports
mkdir -p $ports
for file in /sys/class/virtio-ports/*/name; do
  folder=${file%/name}
  ln -sfn "/dev/${folder##*/}" "$ports/$(<"$file")"
done

cat >/run/vm/bin/vm-powercut <<END
#!/bin/sh
# Cuts the power: this machine is killed, and nothing is written any more.
[ -n "\$1" ] && sleep "\$1"
echo powercut >$ports/vm.ctl
sleep 60
END
cat >/run/vm/bin/vm-say <<END
#!/bin/sh
# A line on the standard error of run.sh, at once: what is said survives a cut of the power.
echo "say \$*" >$ports/vm.ctl
END
chmod 755 /run/vm/bin/*

PATH=$PATH:/usr/sbin:/sbin ip link set lo up || "$BUSYBOX" ip link set lo up
for module in "${VM_MODULES[@]}"; do
  modprobe $module || echo "run.sh: modprobe $module failed" >$ports/vm.err
done
export VM=1 VM_OUT=/run/vm/out
. /run/vm/environment
export PATH=/run/vm/bin:$PATH
read -r up _ </proc/uptime
echo "up $up" >$ports/vm.ctl
cd "$VM_CWD" || cd /
(exec "${VM_COMMAND[@]}") >$ports/vm.out 2>$ports/vm.err &
wait $!
status=$?
[[ $VM_WANTS_OUT == 0 ]] || tar -C $VM_OUT -cf - . >$ports/vm.tar 2>/dev/null
echo "status $status" >$ports/vm.ctl
sleep 0.05
exec "$BUSYBOX" poweroff -f
