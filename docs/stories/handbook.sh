#!/bin/sh
# The story that FreeBSD's handbook tells of HAST, from an empty disk to the recovery from a
# split-brain, with two nodes on one machine: alpha and beta. Read it, or run it:
#
#   sh docs/stories/handbook.sh              in a temporary folder, removed at the end
#
# It needs libnbd's nbdcopy, e2fsprogs and jq. On two machines the commands are the same, without -n and
# -c; the disks are block devices, and what reads and writes the export is whatever you like.
#
# HASTD and HASTCTL say how the programs are called, HAST_USER whom the workers run as when you are
# root, PORT the first of two free ports.
set -eu
PATH=$PATH:/usr/sbin:/sbin  # mke2fs and its kin

here=$(cd "$(dirname "$0")/../.." && pwd)
HASTD=${HASTD:-node $here/dist/bin/hastd.js}
HASTCTL=${HASTCTL:-node $here/dist/bin/hastctl.js}
HAST_USER=${HAST_USER:-nobody}
PORT=${PORT:-8457}
place=$(mktemp -d "${TMPDIR:-/tmp}/hast-story-XXXXXX")
chmod 755 "$place"
conf=$place/hast.conf

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# hastctl of a node, shown as it would be typed there: on alpha role primary data
on() {
	node=$1
	shift
	printf '%s# hastctl %s\n' "$node" "$*"
	verb=$1
	shift
	$HASTCTL "$verb" -c "$conf" -n "$node" "$@"
}

start() { # hastd goes to the background by itself when it is ready
	printf '%s# hastd\n' "$1"
	$HASTD -c "$conf" -n "$1"
}

# The node is gone at once, as by a power button: hastd and its workers.
kill_node() {
	printf '%s is gone (SIGKILL)\n' "$1"
	pids=$($HASTCTL status -c "$conf" -n "$1" --json | jq -r '.resources[].worker.pid // empty')
	kill -KILL "$(cat "$place/$1.pid")" $pids
	while kill -0 "$(cat "$place/$1.pid")" 2>/dev/null; do sleep 0.1; done
}

stop_node() {
	printf '%s ends in order (SIGTERM)\n' "$1"
	pid=$(cat "$place/$1.pid")
	kill -TERM "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

finish() {
	status=$?
	for node in alpha beta; do
		kill -TERM "$(cat "$place/$node.pid" 2>/dev/null)" 2>/dev/null || true
	done
	for node in alpha beta; do
		while kill -0 "$(cat "$place/$node.pid" 2>/dev/null)" 2>/dev/null; do sleep 0.1; done
	done
	rm -rf "$place"
	exit $status
}
trap finish EXIT
trap 'exit 1' INT TERM

# Waits until what `hastctl status --json` says of the node makes a jq expression true.
until_node() {
	tries=0
	until $HASTCTL status -c "$conf" -n "$1" --json 2>/dev/null | jq -e ".resources[0] | $2" >/dev/null; do
		tries=$((tries + 1))
		if [ $tries -gt 120 ]; then
			$HASTCTL status -c "$conf" -n "$1" >&2 || true
			fail "$1: not $2"
		fi
		sleep 0.25
	done
}
in_sync() { until_node "$1" '.worker.status == "complete" and .worker.state == "in-sync" and .worker.dirtyBytes == 0'; }

export_of() { printf 'nbd+unix:///data?socket=%s/%s.nbd' "$place" "$1"; }

# The disk gets a file system with one file in it, made from a folder.
new_filesystem() {
	rm -rf "$place/tree" && mkdir "$place/tree"
	printf '%s\n' "$2" >"$place/tree/note"
	rm -f "$place/fs.img" && truncate -s 8M "$place/fs.img"
	mke2fs -q -t ext4 -d "$place/tree" "$place/fs.img"
	nbdcopy --destination-is-zero "$place/fs.img" "$(export_of "$1")" 2>/dev/null ||
		nbdcopy "$place/fs.img" "$(export_of "$1")"
	printf '%s: a new file system says "%s"\n' "$1" "$2"
}

# What the file on that disk says; the file system is checked first.
check() {
	nbdcopy "$(export_of "$1")" "$place/copy.img"
	e2fsck -fn "$place/copy.img" >/dev/null 2>&1 || fail "the file system that $1 serves is damaged"
	note=$(debugfs -R 'cat note' "$place/copy.img" 2>/dev/null)
	[ "$note" = "$2" ] || fail "$1 says \"$note\", and not \"$2\""
	printf '%s serves a clean file system that says "%s"\n' "$1" "$2"
}

say "Two empty disks and one configuration, the same on both nodes"
truncate -s 32M "$place/alpha.img" "$place/beta.img"
cat >"$conf" <<EOF
device none
timeout 5
$([ "$(id -u)" -ne 0 ] || printf 'user %s' "$HAST_USER")
on alpha {
	control $place/alpha.control
	pidfile $place/alpha.pid
	listen tcp4://127.0.0.1:$PORT
}
on beta {
	control $place/beta.control
	pidfile $place/beta.pid
	listen tcp4://127.0.0.1:$((PORT + 1))
}
resource data {
	on alpha {
		local $place/alpha.img
		remote tcp4://127.0.0.1:$((PORT + 1))
		export uds://$place/alpha.nbd
	}
	on beta {
		local $place/beta.img
		remote tcp4://127.0.0.1:$PORT
		export uds://$place/beta.nbd
	}
}
EOF

say "Metadata, daemons, roles"
on alpha create data
on beta create data
start alpha
start beta
on beta role secondary data
on alpha role primary data
in_sync alpha
on alpha status data

say "A file system on it"
new_filesystem alpha "written on alpha"
check alpha "written on alpha"

say "A planned change of roles"
on alpha role secondary data
on beta role primary data
check beta "written on alpha"
on beta role secondary data
on alpha role primary data
in_sync alpha

say "Alpha dies, and beta takes over"
kill_node alpha
on beta role primary data
check beta "written on alpha"
new_filesystem beta "written on beta while alpha was away"

say "Alpha comes back and gets what it missed"
start alpha
on alpha role secondary data
in_sync beta
check beta "written on beta while alpha was away"

# Each node is written to while the other one is away. Beta keeps its data, alpha's may go.
split_brain() {
	say "Split-brain: both are written to, each alone"
	stop_node alpha
	new_filesystem beta "$1"
	stop_node beta
	start alpha
	on alpha role primary data
	new_filesystem alpha "nobody will miss this"
	on alpha role secondary data
	start beta
	on beta role primary data
	until_node beta '[.notes[] | select(startswith("Split-brain"))] | length > 0'
	on beta why data
}

split_brain "kept by beta"
say "Recovery as the handbook has it: alpha is created anew, and everything is copied"
on alpha role init data
on alpha create data
on alpha role secondary data
in_sync beta
check beta "kept by beta"

split_brain "kept by beta again"
say "Recovery with discard: only what either has written since is copied"
on alpha role secondary data
on alpha discard data
in_sync beta
check beta "kept by beta again"

say "At the end alpha serves the same"
on beta role secondary data
on alpha role primary data
check alpha "kept by beta again"
stop_node alpha
stop_node beta
printf '\nAll of it went as the handbook says.\n'
