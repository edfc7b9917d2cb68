# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh disable=SC2034,SC2154,SC3043
# Stands in for what an init script of OpenWrt finds in rc.common, procd.sh and
# network.sh. The sections are variables: SECTIONS, TYPE_name, VALUE_name_option, and
# BAD for the options that do not validate. What happens goes to RECORD.

record() {
	printf '%s' "$1" >>"$RECORD"
	shift
	[ $# = 0 ] || printf '\037%s' "$@" >>"$RECORD"
	echo >>"$RECORD"
}

# The folders are given to a user that this machine has not.
find() { :; }

# The BusyBox of OpenWrt lacks these, the one of Debian does not.
for word in base64 install nproc od sha1sum stat timeout xxd; do
	eval "$word() { record log no.such.program $word; }"
done

logger() {
	record log "$4" "$6"
}

config_load() { :; }

config_foreach() {
	local section type function="$1" wanted="$2"
	shift 2
	for section in $SECTIONS; do
		eval "type=\$TYPE_$section"
		[ "$type" != "$wanted" ] || "$function" "$section" "$@"
	done
}

uci_load_validate() {
	local _section="$3" _function="$4" _result=0 _rule _option _value
	shift 4
	for _rule; do
		_option="${_rule%%:*}"
		eval "local $_option"
		eval "_value=\$VALUE_${_section}_$_option"
		if [ -z "$_value" ]; then
			case "$_rule" in
				*:*:*) _value="${_rule##*:}" ;;
			esac
		fi
		case " $BAD " in
			*" $_section.$_option "*)
				_result=1
				_rule="${_rule#*:}"
				echo "overflowd.$_section.$_option=$_value validates as $_rule with false" >&2
				;;
		esac
		eval "$_option=\$_value"
	done
	[ -n "$_function" ] || return $_result
	"$_function" "$_section" "$_result"
}

network_flush_cache() { :; }

network_get_device() {
	local pair
	for pair in $NETWORKS; do
		case "$pair" in
			"$2="*) eval "$1=${pair#*=}" && return 0 ;;
		esac
	done
	return 1
}

procd_open_instance() { record instance; }
procd_close_instance() { :; }
procd_set_param() { record "$@"; }
procd_add_jail() { record jail "$@"; }
procd_add_jail_mount_rw() { record rw "$@"; }
procd_add_jail_mount() { record ro "$@"; }
procd_open_data() { data=''; }
procd_close_data() { record data "$data"; }
json_add_array() { data="$data$1["; }
json_close_array() { data="$data]"; }
json_add_object() { data="$data{"; }
json_close_object() { data="$data}"; }
json_add_string() { data="$data $1=$2"; }
procd_set_config_changed() { record changed "$1"; }

config_get() { eval "$1=\$VALUE_$2_$3"; }
procd_add_interface_trigger() { record trigger "$@"; }
procd_add_reload_trigger() { record reload "$@"; }
procd_open_validate() { record validate open; }
procd_close_validate() { record validate close; }
procd_add_validation() { record validate add; }
