#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Records what softflowd exports, and what tshark and nfdump read of it, into
# the folder of this script. Needs root and softflowd, tcpdump, tshark, nfdump,
# python3, curl, ping. It makes three network namespaces and removes them:
#
#   host 45.83.0.10 ---- 91.200.16.20 exporter 198.51.100.1 ---- 198.51.100.2-4 collector
#                                              2001:db8::1 ----- 2001:db8::2-3
#
# Five softflowd watch the same traffic between host and exporter.
set -eu

out=$(cd "$(dirname "$0")" && pwd)
host=host$$ exporter=exporter$$ collector=collector$$
tmp=$(mktemp -d)
pids=

cleanup() {
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	wait
	for ns in "$host" "$exporter" "$collector"; do ip netns del "$ns" 2>/dev/null || :; done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# until_true COMMAND... waits up to 5 s for it.
until_true() {
	tries=50
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || { echo "gave up on: $*" >&2; exit 1; }
		sleep 0.1
	done
}

network() {
	for ns in "$host" "$exporter" "$collector"; do
		ip netns add "$ns"
		ip -n "$ns" link set lo up
	done
	ip -n "$host" link add wan0 type veth peer name wan0 netns "$exporter"
	# 30 records in IPv6 are 1,512 bytes: whole in this link, but not in the
	# path to 2001:db8::3.
	ip -n "$exporter" link add mgmt0 mtu 1600 type veth peer name mgmt0 mtu 1600 netns "$collector"
	# Without segmentation offload: the packets counted are those on a wire.
	ip -n "$host" link set wan0 gso_max_segs 1 up
	ip -n "$exporter" link set wan0 gso_max_segs 1 up
	ip -n "$exporter" link set mgmt0 up
	ip -n "$collector" link set mgmt0 up
	ip -n "$host" addr add 45.83.0.10/24 dev wan0
	ip -n "$host" addr add 2a01:4f8::10/64 dev wan0 nodad
	ip -n "$host" route add 91.200.16.0/24 dev wan0
	ip -n "$exporter" addr add 91.200.16.20/24 dev wan0
	ip -n "$exporter" addr add 2a01:4f8::20/64 dev wan0 nodad
	ip -n "$exporter" route add 45.83.0.0/24 dev wan0
	ip -n "$exporter" addr add 198.51.100.1/24 dev mgmt0
	ip -n "$exporter" addr add 2001:db8::1/64 dev mgmt0 nodad
	for addr in 198.51.100.2/24 198.51.100.3/24 198.51.100.4/24; do
		ip -n "$collector" addr add "$addr" dev mgmt0
	done
	for addr in 2001:db8::2/64 2001:db8::3/64; do
		ip -n "$collector" addr add "$addr" dev mgmt0 nodad
	done
	ip -n "$exporter" route add 2001:db8::3/128 dev mgmt0 mtu 1500
}

# capture FILE INTERFACE FILTER
capture() {
	ip netns exec "$collector" tcpdump -q -U -i "$2" -w "$tmp/$1" "$3" 2>"$tmp/$1.log" &
	pids="$pids $!"
	until_true grep -q 'listening on' "$tmp/$1.log"
}

# collect NAME FAMILY ADDRESS
collect() {
	mkdir "$tmp/$1.nfcapd"
	ip netns exec "$collector" nfcapd "-$2" -b "$3" -p 2055 -t 3600 -w "$tmp/$1.nfcapd" >"$tmp/$1.nfcapd.log" 2>&1 &
	pids="$pids $!"
	until_true bound "$3"
}

bound() { ip netns exec "$collector" ss -Hlnu | grep -F -q "$1"; }

# export_to NAME HOST OPTION...
export_to() {
	name=$1 to=$2
	shift 2
	ip netns exec "$exporter" softflowd -d -i wan0 -p "$tmp/$name.pid" -c "$tmp/$name.ctl" \
		-t maxlife=60 -n "$to:2055" "$@" 2>"$tmp/$name.log" &
	pids="$pids $!"
	exporters="$exporters $name"
	until_true test -S "$tmp/$name.ctl"
}

tell_exporters() {
	for name in $exporters; do softflowctl -c "$tmp/$name.ctl" "$1" >/dev/null; done
}

serve() {
	mkdir "$tmp/www"
	head -c 100 /dev/zero >"$tmp/www/small"
	head -c 20000 /dev/zero >"$tmp/www/medium"
	head -c 300000 /dev/zero >"$tmp/www/large"
	ip netns exec "$exporter" python3 -m http.server -b 91.200.16.20 -d "$tmp/www" 8080 >/dev/null 2>&1 &
	pids="$pids $!"
	ip netns exec "$exporter" python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("91.200.16.20", 5300))
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("91.200.16.20", 5301))
while True:
    b, a = s.recvfrom(65535)
    s.sendto(b, a)
' &
	pids="$pids $!"
	until_true ip netns exec "$host" curl -s -o /dev/null http://91.200.16.20:8080/small
}

# traffic has TCP that ends, TCP that is refused, UDP in several sizes and TOS,
# fragments, ICMP, an ICMP error, and IPv6, which v1 and v5 cannot tell.
traffic() {
	for file in small medium large small medium; do
		ip netns exec "$host" curl -s -m 20 -o /dev/null "http://91.200.16.20:8080/$file"
	done
	ip netns exec "$host" curl -s -m 5 -o /dev/null http://91.200.16.20:81/ || :
	ip netns exec "$host" python3 -c '
import socket
for count, size, tos in [(1, 1, 0), (3, 40, 0), (10, 1200, 0xb8), (1, 4000, 0), (40, 64, 0x20)] * 2:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("45.83.0.10", 0))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    s.settimeout(5)
    for _ in range(count):
        s.sendto(bytes(size), ("91.200.16.20", 5300))
        s.recv(65535)
s.sendto(b"?", ("91.200.16.20", 9))
'
	ip netns exec "$host" ping -6 -q -i 0.2 -c 2 2a01:4f8::20 >/dev/null
	ip netns exec "$host" ping -q -i 0.2 -c 3 -Q 0x10 91.200.16.20 >/dev/null
	# softflowd reads a block of its ring when it is full: it is filled up with
	# what may stay in the last block.
	filled=0
	while lagging "$filled"; do
		[ "$filled" -lt 10000 ] || { echo "softflowd does not catch up" >&2; exit 1; }
		ip netns exec "$host" python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("45.83.0.10", 5301))
for _ in range(100):
    s.sendto(b"", ("91.200.16.20", 5301))
'
		filled=$((filled + 100))
	done
}

# lagging PACKETS tells whether a softflowd that does not sample has not yet read
# more than so many packets.
lagging() {
	for name in $exporters; do
		[ "$name" != sampled ] || continue
		softflowctl -c "$tmp/$name.ctl" statistics >"$tmp/statistics"
		awk -v filled="$1" '/^Packets processed:/ { done = $3 } /^Ignored packets:/ { done += $3 }
			/^Packets received by libpcap:/ { got = $5 } END { exit !(got - done > filled) }' "$tmp/statistics" && return 0
	done
	return 1
}

# fields FILE writes one line a record, as tshark's dissector reads the file.
# Times are in milliseconds of the exporter's uptime, which is what v1 and v5
# hold; what a version has no field for is empty.
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

# anonymous FILE blanks what a pcapng file says of the machine.
anonymous() {
	python3 - "$1" <<'EOP'
import struct, sys
b = bytearray(open(sys.argv[1], "rb").read())
at = 0
while at < len(b):
    kind, length = struct.unpack_from("<II", b, at)
    options, hide = {0x0A0D0D0A: (24, (2, 3)), 1: (16, (12,))}.get(kind, (length, ()))
    o = at + options
    while o < at + length - 4:
        code, n = struct.unpack_from("<HH", b, o)
        if code in hide:
            b[o + 4:o + 4 + n] = b"-" * n
        o += 4 + (n + 3 & ~3)
    at += length
open(sys.argv[1], "wb").write(b)
EOP
}

network
exporters=''
collect softflowd-v5 4 198.51.100.2
collect softflowd-v1 4 198.51.100.3
collect softflowd-v5-sampled 4 198.51.100.4
collect softflowd-v5-ip6 6 2001:db8::2
collect softflowd-v5-ip6-fragments 6 2001:db8::3
capture softflowd-v5.pcap mgmt0 'udp port 2055 and host 198.51.100.2'
capture softflowd-v5-sll2.pcap any 'udp port 2055 and host 198.51.100.2'
capture softflowd-v1.pcap mgmt0 'udp port 2055 and host 198.51.100.3'
capture softflowd-v5-sampled.pcap mgmt0 'udp port 2055 and host 198.51.100.4'
capture softflowd-v5-ip6.pcap mgmt0 'udp port 2055 and host 2001:db8::2'
capture softflowd-v5-ip6-fragments.pcap mgmt0 'host 2001:db8::3 and (udp port 2055 or ip6[6] == 44)'
ip netns exec "$collector" dumpcap -q -n -i mgmt0 -f 'udp port 2055 and host 198.51.100.2' \
	-w "$tmp/softflowd-v5.pcapng" 2>"$tmp/dumpcap.log" &
pids="$pids $!"
until_true grep -q 'File:' "$tmp/dumpcap.log"

export_to v5 198.51.100.2 -v 5
export_to v1 198.51.100.3 -v 1
export_to sampled 198.51.100.4 -v 5 -s 10
export_to ip6 '[2001:db8::2]' -v 5
export_to ip6-fragments '[2001:db8::3]' -v 5
serve
traffic
tell_exporters expire-all
traffic
tell_exporters shutdown
sleep 1

for pid in $pids; do kill "$pid" 2>/dev/null || :; done
wait
pids=
anonymous "$tmp/softflowd-v5.pcapng"
for file in "$tmp"/softflowd-*.pcap*; do
	[ "${file%.log}" = "$file" ] || continue
	name=${file##*/}
	cat "$file" >"$out/$name"
	case $name in
	*.pcapng | *-sll2.pcap) continue ;; # the same datagrams as softflowd-v5.pcap
	esac
	fields "$out/$name" >"$out/${name%.pcap}.tshark.tsv"
	TZ=UTC nfdump -q -R "$tmp/${name%.pcap}.nfcapd" -o csv >"$out/${name%.pcap}.nfdump.csv"
done
