#!/usr/bin/env bash
# Runs in a mount namespace of its own: shows all of this machine's tree, read-only, to the machine
# of the tests. Arguments: folder of the run, virtiofsd.
set -u
run=$1 virtiofsd=$2
view=$run/view
mkdir -p "$view"
mount --bind / "$view" && mount -o remount,bind,ro "$view" || exit 1
while read -r _ _ _ _ place _ rest; do
  type=${rest##* - }
  type=${type%% *}
  place=$(printf '%b' "$place")
  case $place in / | /proc* | /sys* | /dev* | /run* | "$run"*) continue ;; esac
  case $type in
    ext2 | ext3 | ext4 | xfs | btrfs | overlay | tmpfs | zfs | f2fs | fuse* | virtiofs | 9p) ;;
    *) continue ;;
  esac
  [[ -d $place && -d $view$place ]] || continue
  mount --bind "$place" "$view$place" 2>/dev/null && mount -o remount,bind,ro "$view$place"
done </proc/self/mountinfo
socket=$run/root.sock
if "$virtiofsd" --help 2>&1 | grep -q thread-pool-size=NUM; then # the one that came with QEMU 7
  exec "$virtiofsd" --socket-path="$socket" -o source="$view" -o cache=always \
    -o sandbox=chroot -o no_posix_lock --thread-pool-size=0
fi
exec "$virtiofsd" --socket-path="$socket" --shared-dir "$view" --cache always --sandbox chroot
