#!/usr/bin/env bash
# Runs one command in a machine that QEMU makes for it: with a Linux kernel of its own (nbd, ublk,
# dm-flakey, null_blk ...) and this machine's whole tree, read-only, under a root of RAM. Nothing
# that the command writes comes out, but for --out and disks that are files. No network but its own
# loopback, no udev, no systemd. docs/kernel.md tells what for.
set -u -o pipefail
umask 022
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

usage() {
  cat <<'END'
usage: run.sh [OPTION]... -- COMMAND [ARGUMENT]...
   or: run.sh --missing              one line for each thing that is not here, and how to get it
   or: run.sh --prepare              fetches the kernel now
  --disk SIZE|FILE[,WORD]...   /dev/vda, vdb ... in this order; a FILE has a slash and is kept;
                               words: cache=none|writeback|directsync|unsafe, ro, lbs=4096
  --out FOLDER     what the command leaves in $VM_OUT
  --module 'NAME ARGUMENTS'    modprobe before the command
  --env NAME[=VALUE]           PATH, HOME, LANG and CI are always passed
  --seconds N      limit for all of it (600)
  --cpus N (1)     --memory SIZE (2G)     --append 'KERNEL ARGUMENTS'
  --icount N       the clock counts instructions, 2^N ns each: times that repeat
  --console FILE   keeps what the kernel prints      --verbose
status: the command's; 99 after vm-powercut; 124 too late; 125 no machine, or its kernel died
END
}
die() {
  echo "run.sh: $*" >&2
  exit 125
}
say() { [[ $verbose == 0 ]] || echo "run.sh: $*" >&2; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# ---- Options -------------------------------------------------------------------------------------
disks=() modules=() environment=()
out='' seconds=600 cpus=1 memory=2G append='' icount='' console='' verbose=0 mode=run
while (($# > 0)); do
  case $1 in
    --missing | --prepare) mode=${1#--} ;;
    --disk) disks+=("$2") && shift ;;
    --out) out=$2 && shift ;;
    --module) modules+=("$2") && shift ;;
    --env) environment+=("$2") && shift ;;
    --seconds) seconds=$2 && shift ;;
    --cpus) cpus=$2 && shift ;;
    --memory) memory=$2 && shift ;;
    --append) append=$2 && shift ;;
    --icount) icount=$2 && shift ;;
    --console) console=$2 && shift ;;
    --verbose) verbose=1 ;;
    --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) usage >&2 && die "unknown option $1" ;;
    *) break ;;
  esac
  shift || die 'an option lacks its value'
done
[[ $mode != run ]] || (($# > 0)) || { usage >&2 && exit 125; }

# ---- What it needs -------------------------------------------------------------------------------
cache=${HASTD_VM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/var/cache}/.cache}/hastd-vm}
busybox=$(command -v busybox)
qemu=$(command -v qemu-system-x86_64)
virtiofsd=
for file in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd "$(command -v virtiofsd)"; do
  [[ -x $file ]] && virtiofsd=$file && break
done

missing() {
  [[ $(id -u) == 0 ]] || echo 'not root (mounts, virtiofsd)'
  [[ -n $busybox ]] || echo 'busybox is missing: apt-get install busybox-static'
  [[ -n $qemu ]] || echo 'QEMU is missing: apt-get install qemu-system-x86'
  [[ -n $virtiofsd ]] ||
    echo 'virtiofsd is missing: apt-get install qemu-system-common (Debian 12) or virtiofsd'
  [[ -s $cache/kernel/current/vmlinuz ]] || command -v apt-get dpkg-deb >/dev/null ||
    echo 'no kernel, and no apt-get to fetch a Debian one with'
}
if [[ $mode == missing ]]; then
  missing
  exit 0
fi
lacks=$(missing)
[[ -z $lacks ]] || die "$lacks"

mkdir -p "$cache/run" || die "cannot make $cache"
cache=$(cd "$cache" && pwd -P)
. "$here/kernel.sh"
(
  flock 9
  prepare_kernel >/dev/null && build_initrd "$cache/kernel/current" >"$cache/initrd"
) 9>"$cache/.lock" || die 'no kernel: is the Debian mirror to be reached?'
[[ $mode == run ]] || exit 0
kernel=$(readlink -f "$cache/kernel/current")
version=$(<"$kernel/version")

# ---- The folder of this run ----------------------------------------------------------------------
run=$(mktemp -d -p "$cache/run") || die 'no folder for the run'
children=() machine=''
clean_up() {
  local pid
  for pid in $machine; do kill -9 "$pid" 2>/dev/null; done
  for pid in "${children[@]}"; do kill "$pid" 2>/dev/null; done
  wait 2>/dev/null
  [[ -z $console || ! -f $run/console ]] || cp "$run/console" "$console"
  rm -rf "$run"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

quoted() { # NAME WORD...: an array that bash reads
  local name=$1
  shift
  printf '%s=(' "$name"
  (($# == 0)) || printf '%q ' "$@"
  echo ')'
}

job=$run/job/vm
mkdir -p "$job"
cp "$here/guest-main.sh" "$job/"
printf 'BUSYBOX=%q\nMODULES=%q\n' "$(readlink -f "$busybox")" \
  "$kernel/modules/lib/modules/$version" >"$job/boot.conf"
{
  quoted VM_COMMAND "$@"
  quoted VM_MODULES "${modules[@]}"
  printf 'VM_CWD=%q\nVM_WANTS_OUT=%q\n' "$PWD" "$([[ -z $out ]] && echo 0 || echo 1)"
} >"$job/command.conf"
for name in PATH HOME LANG CI "${environment[@]}"; do
  if [[ $name == *=* ]]; then
    printf 'export %s=%q\n' "${name%%=*}" "${name#*=}"
  elif [[ -n ${!name+x} ]]; then
    printf 'export %s=%q\n' "$name" "${!name}"
  fi
done >"$job/environment"
archive_of "$run/job" | cat "$(<"$cache/initrd")" - >"$run/initrd" || die 'no archive to boot from'

# ---- The machine ---------------------------------------------------------------------------------
dies_with_us=(setpriv --pdeathsig KILL)
"${dies_with_us[@]}" true 2>/dev/null || dies_with_us=()
"${dies_with_us[@]}" unshare -m -- bash "$here/share.sh" "$run" "$virtiofsd" \
  >"$run/share.log" 2>&1 &
children+=($!)

arguments=(-nodefaults -no-user-config -display none -no-reboot)
if [[ -n $icount ]]; then
  cpus=1
  arguments+=(-icount "shift=$icount,sleep=on" -accel tcg,thread=single -cpu max,la57=off,cx16=off)
elif [[ -w /dev/kvm ]]; then
  arguments+=(-accel kvm -cpu host)
else
  arguments+=(-accel 'tcg,thread=multi,tb-size=512' -cpu max,la57=off,cx16=off)
fi
board=q35,sata=off,smbus=off,usb=off,vmport=off,hpet=off,graphics=off
words="console=ttyS0,115200 quiet loglevel=4 panic=-1 oops=panic nokaslr mitigations=off"
words+=" tsc=reliable no_timer_check cryptomgr.notests audit=0 apparmor=0 nowatchdog"
words+=" random.trust_cpu=on 8250.nr_uarts=1 rcupdate.rcu_expedited=1 net.ifnames=0"
arguments+=(
  -machine "$board,memory-backend=ram" -m "$memory" -smp "$cpus"
  -object "memory-backend-memfd,id=ram,size=$memory,share=on"
  -kernel "$kernel/vmlinuz" -initrd "$run/initrd" -append "$words $append"
  -chardev "file,id=con,path=$run/console" -serial chardev:con
  -device virtio-serial-pci,max_ports=8 -device virtio-rng-pci
  -chardev "socket,id=root,path=$run/root.sock"
  -device vhost-user-fs-pci,chardev=root,tag=root,queue-size=512
)
for port in out err ctl tar; do
  mkfifo "$run/$port"
  [[ $port != tar || -n $out ]] || continue
  arguments+=(-chardev "file,id=$port,path=$run/$port"
    -device "virtserialport,chardev=$port,name=vm.$port")
done

add_disk() { # SPEC
  local words=() word source direct='' options='' id="disk$((disk_count++))"
  IFS=, read -r -a words <<<"$1"
  source=${words[0]}
  local drive=readonly=off
  for word in "${words[@]:1}"; do
    case $word in
      cache=*) direct=${word#*=} ;;
      ro) drive=readonly=on ;;
      lbs=*) options+=",logical_block_size=${word#*=}" ;;
      *) die "--disk does not know $word" ;;
    esac
  done
  case $source in
    */*) [[ -e $source ]] || die "there is no disk $source" && source=$(readlink -f "$source") ;;
    *) truncate -s "$source" "$run/$id" && source=$run/$id || die "--disk does not know $source" ;;
  esac
  if [[ -z $direct ]]; then
    direct=none
    dd if="$source" of=/dev/null bs=4096 count=1 iflag=direct status=none 2>/dev/null ||
      direct=writeback
  fi
  local aio=threads
  [[ $direct != none && $direct != directsync ]] || aio=native
  drive+=",if=none,id=$id,file=$source,format=raw,cache=$direct,discard=unmap,aio=$aio"
  arguments+=(-drive "$drive"
    -device "virtio-blk-pci,drive=$id,serial=$id,physical_block_size=4096$options")
}
disk_count=0
for disk in "${disks[@]}"; do add_disk "$disk"; done

for _ in {1..100}; do [[ -S $run/root.sock ]] && break || sleep 0.05; done
[[ -S $run/root.sock ]] || { cat "$run/share.log" >&2 && die 'virtiofsd did not start'; }
cat "$run/out" &
readers=($!)
cat "$run/err" >&2 &
readers+=($!)
if [[ -n $out ]]; then
  mkdir -p "$out"
  tar -C "$out" -xf "$run/tar" &
  readers+=($!)
fi
children+=("${readers[@]}")
began=$(milliseconds)
"${dies_with_us[@]}" "$qemu" "${arguments[@]}" >"$run/qemu.log" 2>&1 </dev/null &
machine=$!

# ---- What it says --------------------------------------------------------------------------------
alive() { kill -0 "$1" 2>/dev/null; }
kill_machine() { { kill -9 "$machine" && wait "$machine"; } 2>/dev/null; }

status='' cut=''
exec 8<>"$run/ctl"
while [[ -z $status$cut ]]; do
  if ! read -r -t 0.5 -u 8 word rest; then
    if ! alive "$machine"; then
      read -r -t 0.1 -u 8 word rest || break
    elif (($(milliseconds) >= began + seconds * 1000)); then
      cut=late
      continue
    else
      continue
    fi
  fi
  case $word in
    up) say "the command begins after $(($(milliseconds) - began)) ms (kernel: $rest s)" ;;
    say) echo "vm: $rest" >&2 ;;
    status) status=$rest ;;
    powercut) cut=power ;;
  esac
done
exec 8>&-
if [[ -n $status ]]; then
  for _ in {1..100}; do alive "$machine" && sleep 0.05 || break; done
fi
kill_machine
machine=''
for pid in "${readers[@]}"; do # the last they have to print
  for _ in {1..100}; do alive "$pid" && sleep 0.05 || break; done
done
say "all of it took $(($(milliseconds) - began)) ms"
case $cut in
  power) exit 99 ;;
  late)
    echo "run.sh: not done after $seconds s" >&2
    tail -n 5 "$run/console" >&2
    exit 124
    ;;
esac
if [[ -z $status ]]; then
  echo 'run.sh: the machine ended without a result' >&2
  cat "$run/qemu.log" >&2
  tail -n 30 "$run/console" >&2
  exit 125
fi
exit "$status"
