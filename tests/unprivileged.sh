#!/usr/bin/env bash
# Runs the tests as an ordinary user who has no home and can write to one temporary directory and nothing else: as in a pod
# with a read-only root file system and an arbitrary user.
#
#   tests/unprivileged.sh BINARIES CARGO [ARGUMENT OF NEXTEST ...]
#
# BINARIES and CARGO are what `cargo nextest list --list-type binaries-only --message-format json` and `cargo metadata` say:
# everything is built before, since nothing can be built there. Needs user namespaces, and neither root nor sudo.
set -euo pipefail

USER_ID=${UNPRIVILEGED_USER:-1000}
# Bytes of the temporary directory, the only one that can be written to. It is in memory.
ROOM=4g

# The stages call this script again: as root of a namespace, to arrange the file system, and then as the user.
case ${UNPRIVILEGED_STAGE:-start} in
start)
	binaries=$(realpath "$1") cargo=$(realpath "$2")
	shift 2
	unshare --user --map-root-user true 2>/dev/null || {
		echo "This needs user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1, or a container that allows unshare"
		exit 1
	}
	UNPRIVILEGED_STAGE=arrange exec unshare --user --map-root-user --mount "$0" "$binaries" "$cargo" "$@"
	;;
arrange)
	mount --make-rprivate /
	mount -t tmpfs -o "size=$ROOM,mode=1777" tmpfs /tmp
	# Everything else becomes read-only, but for what is no disk.
	awk '{ print $5, $6 }' /proc/self/mountinfo | while read -r point options; do
		case $point in /tmp | /proc | /proc/* | /dev | /dev/* | /sys | /sys/*) continue ;; esac
		locked=$(tr ',' '\n' <<<"$options" | grep -E '^(nosuid|nodev|noexec|noatime|nodiratime|relatime)$' | paste -sd,)
		mount -o "remount,bind,ro${locked:+,$locked}" "$(printf '%b' "$point")"
	done
	if touch "$PWD/written" 2>/dev/null; then
		echo "the file system is not read-only" >&2
		exit 1
	fi
	UNPRIVILEGED_STAGE=run exec unshare --user --map-user="$USER_ID" --map-group="$USER_ID" "$0" "$@"
	;;
run)
	unset UNPRIVILEGED_STAGE XDG_CACHE_HOME XDG_STATE_HOME XDG_RUNTIME_DIR STATE_DIRECTORY TEMP TMP
	export HOME=/ TMPDIR=/tmp PYTHONDONTWRITEBYTECODE=1 INSTA_UPDATE=no
	echo "user $(id -u), home $HOME"
	binaries=$1 cargo=$2
	shift 2
	cd /
	exec cargo-nextest nextest run --binaries-metadata "$binaries" --cargo-metadata "$cargo" "$@"
	;;
esac
