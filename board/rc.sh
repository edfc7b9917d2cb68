# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh disable=SC1090,SC1091,SC2034,SC3043,SC2154
# Stands in for rc.common, functions.sh, validate_data and procd where a test wants what
# the init script makes of a configuration: the environment and the arguments, a word a
# line, behind "env" and "command". It runs in BusyBox ash, in the root of a router.

sections=
config() {
	section="${2:-anonymous$((count = count + 1))}"
	case "$sections " in
		*" $1:$section "*) ;;
		*) sections="$sections $1:$section" ;;
	esac
}
option() { eval "_${section}_$1=\$2"; }
list() { eval "_${section}_$1=\"\${_${section}_$1:+\$_${section}_$1 }\$2\""; }

config_load() { . "/etc/config/$1"; }
config_get() { eval "$1=\"\$_${2}_$3\""; }
config_foreach() {
	local callback="$1" type="$2" word
	shift 2
	for word in $sections; do
		[ "${word%%:*}" != "$type" ] || "$callback" "${word#*:}" "$@"
	done
}
# What is valid is not looked at: a test gives what is.
uci_load_validate() {
	local _section="$3" _callback="$4" _spec _name _rest
	shift 4
	for _spec; do
		_name="${_spec%%:*}" _rest="${_spec#*:}"
		eval "$_name=\"\$_${_section}_$_name\""
		case "$_rest" in
			*:*) eval ": \"\${$_name:=\${_rest##*:}}\"" ;;
		esac
	done
	"$_callback" "$_section" 0
}
network_get_device() { eval "$1=\"eth-$2\""; }
network_flush_cache() { :; }
exec 3>&2 # which the script turns off
logger() { echo "$*" >&3; }
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() {
	case "$1" in
		env | command)
			printf '%s\n' "$@"
			echo
			;;
	esac
}

. /etc/init.d/overflowd
start_service
