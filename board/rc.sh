# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh disable=SC1090,SC1091,SC2034,SC3043,SC2154
# Runs the init script on a file of UCI, over internal/pack/testdata/procd.sh, where a test
# wants what it makes of it: the environment and the arguments, a word a line, behind
# "env" and "command". It runs in BusyBox ash, in the root of a router.

SECTIONS=
config() {
	section="${2:-anonymous$((count = count + 1))}"
	case "$SECTIONS " in
		*" $section "*) ;;
		*) SECTIONS="$SECTIONS $section" ;;
	esac
	eval "TYPE_$section=\$1"
}
option() { eval "VALUE_${section}_$1=\$2"; }
list() { eval "VALUE_${section}_$1=\"\${VALUE_${section}_$1:+\$VALUE_${section}_$1 }\$2\""; }
. /etc/config/overflowd

. /procd.sh
exec 3>&2 # which the script turns off
record() {
	case "$1" in
		env | command)
			printf '%s\n' "$@"
			echo
			;;
		log) echo "$*" >&3 ;;
	esac
}

. /etc/init.d/overflowd
start_service
