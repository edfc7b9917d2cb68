#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Records the sFlow that exporters send, and what tshark and nfdump's sfcapd read
# of it, into the folder of this script. Needs root and pmacct, Open vSwitch, tcpdump, tshark,
# nfdump with sfcapd, python3, curl, ping, ethtool.
set -eu

out=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
# shellcheck source=../network.sh
. "$out/../network.sh"

records=

# record_at NAME ADDRESS
record_at() {
	records="$records $1"
	collect "$1" sfcapd "$2" 6343
	capture "$1.pcap" mgmt0 "udp port 6343 and host $2"
}

# probe NAME OPTION... starts a pmacctd with the plugin sfprobe.
probe() {
	name=$1
	shift
	{
		printf '%s\n' 'daemonize: false' 'pcap_interface: wan0' 'plugins: sfprobe[p]'
		printf '%s\n' "$@"
	} >"$tmp/$name.conf"
	ip netns exec "$exporter" pmacctd -f "$tmp/$name.conf" >"$tmp/$name.log" 2>&1 &
	exporters="$exporters $!"
}

network
bridge
serve
record_at ovs 198.51.100.4
vsctl set bridge br0 sflow=@s -- --id=@s create sflow agent=mgmt0 'targets="198.51.100.4:6343"' header=128 sampling=10 polling=10
record_at pmacctd 198.51.100.2
probe pmacctd 'sfprobe_receiver: 198.51.100.2:6343' 'sampling_rate: 10' \
	'sfprobe_agentip: 198.51.100.1' 'sfprobe_direction[p]: in' 'sfprobe_ifindex[p]: 7' 'sfprobe_ifspeed[p]: 1000000000'
record_at pmacctd-ip6 2001:db8::2
probe pmacctd-ip6 'sfprobe_receiver: [2001:db8::2]:6343' 'sampling_rate: 25' 'sfprobe_source_ip: 2001:db8::1' \
	'sfprobe_agentip: 2001:db8::1' 'sfprobe_agentsubid: 3' 'sfprobe_direction[p]: out' 'sfprobe_ifindex[p]: 8'
printf '64512,45.83.0.0/16\n4200000001,91.200.16.0/24\n24940,2a01:4f8::/32\n' >"$tmp/networks"
record_at pmacctd-unsampled 198.51.100.3
probe pmacctd-unsampled 'sfprobe_receiver: 198.51.100.3:6343' 'pmacctd_as: file' 'pmacctd_net: file' "networks_file: $tmp/networks" \
	'aggregate: src_host,dst_host,src_port,dst_port,proto,src_as,dst_as,src_mask,dst_mask' \
	'pcap_filter: icmp or icmp6 or port 9 or port 81 or ip[6:2] & 0x3fff != 0 or ip6 proto 44 or (ip6 and port 5300 and greater 200) or vlan'
sleep 2
traffic
traffic6
traffic6
sleep 25 # for counters
traffic6
sleep 2
stop_exporters
stop_all
for name in $records; do
	cat "$tmp/$name.pcap" >"$out/$name.pcap"
	python3 "$out/samples.py" "$out/$name.pcap" >"$out/$name.tshark.tsv"
	TZ=UTC nfdump -q -R "$tmp/$name.nfcapd" -o json | lines >"$out/$name.nfdump.json"
done
