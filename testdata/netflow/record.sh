#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Records what exporters of NetFlow and IPFIX send, and what tshark and nfdump
# read of it, into the folder of this script:
#
#   record.sh [fixed | softflowd | pmacct | fprobe | ovs]...
#
# records the named groups, all of which watch the same traffic, or all groups.
# With softflowd comes what nfreplay makes of its v9.
# Needs root and softflowd, pmacct, fprobe, Open vSwitch, tcpdump, tshark, nfdump,
# python3, curl, ping, ethtool.
set -eu

out=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
# shellcheck source=../network.sh
. "$out/../network.sh"

records=
last=1

# record NAME gives the next address of the collector, as $addr, to an exporter
# and records what comes there.
record() {
	last=$((last + 1))
	record_at "$1" "198.51.100.$last"
}

# record_at NAME ADDRESS [FILTER]
record_at() {
	addr=$2
	records="$records $1"
	collect "$1" nfcapd "$addr" 2055
	capture "$1.pcap" mgmt0 "${3-host $addr and udp port 2055}"
}

# softflow NAME HOST OPTION... starts a softflowd.
softflow() {
	name=$1 to=$2
	shift 2
	ip netns exec "$exporter" softflowd -d -i wan0 -p "$tmp/$name.pid" -c "$tmp/$name.ctl" \
		-t maxlife=60 -n "$to:2055" "$@" 2>"$tmp/$name.log" &
	exporters="$exporters $!"
	softflowds="$softflowds $name"
	until_true test -S "$tmp/$name.ctl"
}

tell_softflowds() {
	for name in $softflowds; do softflowctl -c "$tmp/$name.ctl" "$1" >/dev/null; done
}

# fill sends packets until softflowd has read the traffic: it reads a block of its
# ring when that is full, and what may stay in the last block is this. So does
# fprobe, which does not tell how far it is: it gets $least packets.
fill() {
	filled=0
	while lagging "$filled"; do
		[ "$filled" -lt 20000 ] || { echo "softflowd does not catch up" >&2; exit 1; }
		ip netns exec "$host" python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("45.83.0.10", 5301))
for _ in range(500):
    s.sendto(b"", ("91.200.16.20", 5301))
'
		filled=$((filled + 500))
	done
}

# lagging PACKETS tells whether a softflowd that does not sample has not yet read
# more than so many packets.
lagging() {
	[ "$1" -ge "$least" ] || return 0
	for name in $softflowds; do
		case $name in *-sampled) continue ;; esac
		softflowctl -c "$tmp/$name.ctl" statistics >"$tmp/statistics"
		awk -v filled="$1" '/^Packets processed:/ { done = $3 } /^Ignored packets:/ { done += $3 }
			/^Packets received by libpcap:/ { got = $5 } END { exit !(got - done > filled) }' "$tmp/statistics" && return 0
	done
	return 1
}

# fields FILE writes one line a record of v1, v5 or v7, as tshark's dissector
# reads the file. Times are in milliseconds of the exporter's uptime, which is
# what these hold; what a version has no field for is empty.
fields() {
	printf 'frame\tversion\tcount\tuptime\tunix_secs\tunix_nsecs\tsequence\tsampling_mode\tsampling_rate\t'
	printf 'srcaddr\tdstaddr\tsrcport\tdstport\tprotocol\ttos\ttcpflags\tpackets\toctets\tstart\tend\n'
	tshark -n -r "$1" -d udp.port==2055,cflow -Y cflow -T fields \
		-e frame.number -e cflow.version -e cflow.count -e cflow.sysuptime -e cflow.unix_secs -e cflow.unix_nsecs \
		-e cflow.sequence -e cflow.samplingmode -e cflow.samplerate \
		-e cflow.srcaddr -e cflow.dstaddr -e cflow.srcport -e cflow.dstport -e cflow.protocol -e cflow.tos \
		-e cflow.tcpflags -e cflow.packets -e cflow.octets -e cflow.timestart -e cflow.timeend 2>/dev/null |
		python3 -c '
import decimal, sys
ms = lambda s: str(int(decimal.Decimal(s) * 1000))
number = lambda s: str(int(s, 0))
for line in sys.stdin:
    head, records = (c := line.rstrip("\n").split("\t"))[:9], [x.split(",") for x in c[9:]]
    head[3] = ms(head[3])
    head[5] = str(int(decimal.Decimal(head[5])))
    assert {len(x) for x in records} == {int(head[2])}, line
    for r in zip(*records):
        r = list(r)
        r[5], r[6], r[9], r[10] = number(r[5]), number(r[6]), ms(r[9]), ms(r[10])
        print(*head, *r, sep="\t")
'
}

fixed() {
	record_at softflowd-v5 198.51.100.30
	capture softflowd-v5-sll2.pcap any 'udp port 2055 and host 198.51.100.30'
	ip netns exec "$collector" dumpcap -q -n -i mgmt0 -f 'udp port 2055 and host 198.51.100.30' \
		-w "$tmp/softflowd-v5.pcapng" 2>"$tmp/dumpcap.log" &
	pids="$pids $!"
	until_true grep -q 'File:' "$tmp/dumpcap.log"
	softflow v5 198.51.100.30 -v 5
	record softflowd-v1
	softflow v1 "$addr" -v 1
	record softflowd-v5-sampled
	softflow v5-sampled "$addr" -v 5 -s 10
	record_at softflowd-v5-ip6 2001:db8::2
	softflow ip6 "[$addr]" -v 5
	record_at softflowd-v5-ip6-fragments 2001:db8::3 'host 2001:db8::3 and (udp port 2055 or ip6[6] == 44)'
	softflow ip6-fragments "[$addr]" -v 5
}

softflowd_group() {
	record softflowd-v9
	softflow v9 "$addr" -v 9
	record softflowd-v9-sampled
	softflow v9-sampled "$addr" -v 9 -s 10
	record softflowd-v9-ether
	softflow v9-ether "$addr" -v 9 -T ether
	record softflowd-ipfix
	softflow ipfix "$addr" -v 10
	record softflowd-ipfix-sampled
	softflow ipfix-sampled "$addr" -v 10 -s 10
	record softflowd-ipfix-biflow
	softflow ipfix-biflow "$addr" -v 10 -b
	record softflowd-ipfix-vlan
	softflow ipfix-vlan "$addr" -v 10 -T vlan
	for unit in sec milli micro nano; do
		record softflowd-ipfix-$unit
		softflow ipfix-$unit "$addr" -v 10 -A $unit
	done
	record_at softflowd-ipfix-ip6 2001:db8::4
	softflow ipfix-ip6 "[$addr]" -v 10
	record softflowd-psamp
	softflow psamp-sampled "$addr" -v psamp -s 50
}

# probe NAME OPTION... starts a pmacctd with the plugin nfprobe.
probe() {
	name=$1
	shift
	{
		cat <<-END
			daemonize: false
			pcap_interface: wan0
			plugins: nfprobe[p]
			networks_file: $tmp/networks
			pmacctd_as: file
			pmacctd_net: file
			nfprobe_receiver: $addr:2055
			nfprobe_timeouts: tcp=2:tcp.rst=1:tcp.fin=1:udp=1:icmp=1:general=1:maxlife=3:expint=1
		END
		printf '%s\n' "$@"
	} >"$tmp/$name.conf"
	ip netns exec "$exporter" pmacctd -f "$tmp/$name.conf" >"$tmp/$name.log" 2>&1 &
	exporters="$exporters $!"
}

pmacct_group() {
	printf '64512,45.83.0.0/16\n4200000001,91.200.16.0/24\n24940,2a01:4f8::/32\n' >"$tmp/networks"
	most=src_host,dst_host,src_port,dst_port,proto,tos,tcpflags
	record pmacctd-v9
	probe pmacctd-v9 'nfprobe_version: 9' 'nfprobe_engine: 42' 'nfprobe_direction[p]: in' 'nfprobe_ifindex[p]: 7' \
		"aggregate: $most,in_iface,out_iface,src_as,dst_as,src_mask,dst_mask,vlan,src_mac,dst_mac"
	record pmacctd-v9-sampled
	probe pmacctd-v9-sampled 'nfprobe_version: 9' 'nfprobe_source_ip: 198.51.100.1' 'sampling_rate: 10' "aggregate: $most"
	record pmacctd-ipfix
	probe pmacctd-ipfix 'nfprobe_version: 10' 'nfprobe_engine: 43' 'nfprobe_direction[p]: out' 'nfprobe_ifindex[p]: 8' \
		"aggregate: $most,in_iface,out_iface,src_as,dst_as,src_mask,dst_mask,peer_dst_ip,vlan,src_mac,dst_mac"
	record pmacctd-ipfix-sampled
	probe pmacctd-ipfix-sampled 'nfprobe_version: 10' 'sampling_rate: 10' "aggregate: $most,sampling_rate"
	record pmacctd-ipfix-usec
	probe pmacctd-ipfix-usec 'nfprobe_version: 10' 'nfprobe_tstamp_usec: true'
	record pmacctd-v5-sampled
	probe pmacctd-v5-sampled 'nfprobe_version: 5' 'sampling_rate: 10' 'nfprobe_engine: 3:4'
}

fprobe_group() {
	least=4000
	for version in 1 5 7; do
		record fprobe-v$version
		ip netns exec "$exporter" fprobe -i wan0 -f ip -s 1 -g 2 -d 2 -e 5 -n $version -x 3:4 -l "2:v$version" \
			"$addr:2055" >"$tmp/fprobe-v$version.log" 2>&1 &
		exporters="$exporters $!"
	done
}

ovs_group() {
	record ovs-ipfix
	vsctl set bridge br0 ipfix=@i -- --id=@i create ipfix "targets=\"$addr:2055\"" obs_domain_id=44 obs_point_id=9 \
		sampling=1 cache_active_timeout=2 cache_max_flows=64 other_config:virtual_obs_id=edge-1
	record ovs-v5
	vsctl set bridge br0 netflow=@n -- --id=@n create netflow "targets=\"$addr:2055\"" active_timeout=2 engine_type=5 engine_id=6
}

# replay has nfreplay send what nfcapd has of softflowd's v9.
replay() {
	for version in 5 9; do
		record nfreplay-v$version
		ip netns exec "$exporter" nfreplay -r "$(find "$tmp/softflowd-v9.nfcapd" -name 'nfcapd.2*')" \
			-H "$addr" -p 2055 -v $version >"$tmp/nfreplay.log"
	done
	sleep 1
	stop_all
}

[ $# -gt 0 ] || set -- fixed softflowd pmacct fprobe ovs
network
case " $* " in *' ovs '*) bridge ;; esac
softflowds=''
least=0
serve
for group; do
	case $group in
	fixed) fixed ;;
	softflowd | pmacct | fprobe | ovs) "${group}_group" ;;
	*) echo "no group $group" >&2; exit 1 ;;
	esac
done
traffic
traffic6
fill
tell_softflowds expire-all
# Templates come again: from softflowd after an expiry, from pmacctd after 18
# datagrams.
for round in 1 2 3 4 5 6 7 8; do
	trickle "$round"
	sleep 2
	fill
	tell_softflowds expire-all
done
traffic
traffic6
fill
sleep 4
tell_softflowds shutdown
stop_exporters
stop_all
[ ! -e "$tmp/softflowd-v9.nfcapd" ] || replay

[ ! -e "$tmp/softflowd-v5.pcapng" ] || anonymous "$tmp/softflowd-v5.pcapng"
for file in "$tmp"/softflowd-v5.pcapng "$tmp"/softflowd-v5-sll2.pcap; do
	[ ! -e "$file" ] || cat "$file" >"$out/${file##*/}" # the same datagrams as softflowd-v5.pcap
done
for name in $records; do
	case $name in
	# A datagram a packet or record: some are enough.
	*-psamp) enough=1-30 ;;
	ovs-ipfix) enough=1-180 ;;
	*) enough=1-5000 ;;
	esac
	editcap -F pcap -r "$tmp/$name.pcap" "$out/$name.pcap" "$enough"
	case $name in
	*-v[157] | *-v[157]-*)
		fields "$out/$name.pcap" >"$out/$name.tshark.tsv"
		TZ=UTC nfdump -q -R "$tmp/$name.nfcapd" -o csv >"$out/$name.nfdump.csv"
		;;
	*)
		python3 "$out/records.py" "$out/$name.pcap"
		case $name in *-psamp) continue ;; esac # nfdump has no use for it
		many=$(($(wc -l <"$out/$name.tshark.tsv") - 1))
		TZ=UTC nfdump -q -R "$tmp/$name.nfcapd" -o json | lines | awk -v many="$many" 'NR <= many' >"$out/$name.nfdump.json"
		;;
	esac
done
