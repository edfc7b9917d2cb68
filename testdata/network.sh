# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh
#
# What the scripts that record flow exports share. It makes three network
# namespaces and removes them at the end, with every process started here:
#
#   host 45.83.0.10 ---- 91.200.16.20 exporter 198.51.100.1 ---- 198.51.100.2-40 collector
#                                              2001:db8::1 ----- 2001:db8::2-4
#
# The exporters watch the link between host and exporter. Each exports to an
# address of its own, where a collector listens and a capture is made.

host=host$$ exporter=exporter$$ collector=collector$$
tmp=$(mktemp -d)
chmod 755 "$tmp" # fprobe and pmacctd may drop their rights
pids= exporters=

cleanup() {
	trap - EXIT INT TERM
	stop_exporters
	stop_all
	for ns in "$host" "$exporter" "$collector"; do ip netns del "$ns" 2>/dev/null || :; done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# stop_exporters ends the exporters, which send what they still have.
stop_exporters() {
	for pid in $exporters; do kill "$pid" 2>/dev/null || :; done
	for pid in $exporters; do wait "$pid" 2>/dev/null || :; done
	exporters=
	sleep 1
}

stop_all() {
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	wait
	pids=
}

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
	for n in $(seq 2 40); do
		ip -n "$collector" addr add "198.51.100.$n/24" dev mgmt0
	done
	for addr in 2001:db8::2/64 2001:db8::3/64 2001:db8::4/64; do
		ip -n "$collector" addr add "$addr" dev mgmt0 nodad
	done
	ip -n "$exporter" route add 2001:db8::3/128 dev mgmt0 mtu 1500
}

# bridge has the exporter's end of the link in a bridge of Open vSwitch, without
# the kernel's part of it.
bridge() {
	export OVS_RUNDIR="$tmp/ovs" OVS_LOGDIR="$tmp/ovs" OVS_DBDIR="$tmp/ovs" OVS_SYSCONFDIR="$tmp/ovs"
	mkdir "$tmp/ovs"
	ovsdb-tool create "$tmp/ovs/conf.db" /usr/share/openvswitch/vswitch.ovsschema
	ip netns exec "$exporter" ovsdb-server --remote=punix:"$tmp/ovs/db.sock" "$tmp/ovs/conf.db" --no-chdir >"$tmp/ovsdb.log" 2>&1 &
	pids="$pids $!"
	until_true test -S "$tmp/ovs/db.sock"
	vsctl --no-wait init
	ip netns exec "$exporter" ovs-vswitchd "unix:$tmp/ovs/db.sock" --no-chdir >"$tmp/ovs.log" 2>&1 &
	exporters="$exporters $!"
	ip -n "$exporter" addr flush dev wan0
	vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 wan0
	# What passes the bridge must have its checksums.
	ip netns exec "$host" ethtool -K wan0 tx off >/dev/null
	ip netns exec "$exporter" ethtool -K br0 tx off >/dev/null
	ip -n "$exporter" link set br0 up
	ip -n "$exporter" addr add 91.200.16.20/24 dev br0
	ip -n "$exporter" addr add 2a01:4f8::20/64 dev br0 nodad
	ip -n "$exporter" route add 45.83.0.0/24 dev br0
}

vsctl() { ovs-vsctl --db="unix:$tmp/ovs/db.sock" --timeout=10 "$@"; }

# capture FILE INTERFACE FILTER
capture() {
	ip netns exec "$collector" tcpdump -q -U -i "$2" -w "$tmp/$1" "$3" 2>"$tmp/$1.log" &
	pids="$pids $!"
	until_true grep -q 'listening on' "$tmp/$1.log"
}

# collect NAME PROGRAM ADDRESS PORT
collect() {
	mkdir "$tmp/$1.nfcapd"
	case $3 in *:*) family=-6 ;; *) family=-4 ;; esac
	ip netns exec "$collector" "$2" "$family" -b "$3" -p "$4" -t 3600 -w "$tmp/$1.nfcapd" >"$tmp/$1.nfcapd.log" 2>&1 &
	pids="$pids $!"
	until_true bound "$3"
}

bound() { ip netns exec "$collector" ss -Hlnu | grep -F -q "$1"; }

serve() {
	mkdir "$tmp/www"
	head -c 100 /dev/zero >"$tmp/www/small"
	head -c 20000 /dev/zero >"$tmp/www/medium"
	head -c 300000 /dev/zero >"$tmp/www/large"
	for addr in 91.200.16.20 2a01:4f8::20; do
		ip netns exec "$exporter" python3 -m http.server -b "$addr" -d "$tmp/www" 8080 >/dev/null 2>&1 &
		pids="$pids $!"
	done
	ip netns exec "$exporter" python3 -c '
import select, socket
served = []
for family, addr in (socket.AF_INET, "91.200.16.20"), (socket.AF_INET6, "2a01:4f8::20"):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((addr, 5300))
    served.append(s)
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("91.200.16.20", 5301))
while True:
    for s in select.select(served, [], [])[0]:
        b, a = s.recvfrom(65535)
        s.sendto(b, a)
' &
	pids="$pids $!"
	for addr in 91.200.16.20 '[2a01:4f8::20]'; do
		until_true ip netns exec "$host" curl -s -o /dev/null "http://$addr:8080/small"
	done
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
}

# traffic6 has the same kinds of IPv6, and a VLAN.
traffic6() {
	for file in small medium; do
		ip netns exec "$host" curl -s -m 20 -o /dev/null "http://[2a01:4f8::20]:8080/$file"
	done
	ip netns exec "$host" curl -s -m 5 -o /dev/null 'http://[2a01:4f8::20]:81/' || :
	ip netns exec "$host" python3 -c '
import socket
for count, size, tos in [(1, 1, 0), (3, 40, 0), (5, 1200, 0xb8), (1, 4000, 0), (20, 64, 0x20)]:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("2a01:4f8::10", 0))
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
    s.settimeout(5)
    for _ in range(count):
        s.sendto(bytes(size), ("2a01:4f8::20", 5300))
        s.recv(65535)
s.sendto(b"?", ("2a01:4f8::20", 9))
# Frames with the tag of VLAN 7 and priority 5, from 45.83.7.10 to 45.83.7.20.
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("wan0", 0))
ip = bytes.fromhex("45000080 00000000 40110000 2d53070a 2d530714")
total = sum(int.from_bytes(ip[i:i + 2], "big") for i in range(0, 20, 2))
total = (total & 0xffff) + (total >> 16)
ip = ip[:10] + (~(total + (total >> 16)) & 0xffff).to_bytes(2, "big") + ip[12:]
for _ in range(4):
    s.send(bytes.fromhex("ffffffffffff 020000000007 8100a007 0800") + ip + bytes.fromhex("14b414b5006c0000") + bytes(100))
'
	ip netns exec "$host" ping -6 -q -i 0.2 -c 3 -Q 0x10 2a01:4f8::20 >/dev/null
}

# trickle ROUND is a little: one UDP exchange in each family.
trickle() {
	ip netns exec "$host" python3 -c '
import socket, sys
for family, here, there in (socket.AF_INET, "45.83.0.10", "91.200.16.20"), (socket.AF_INET6, "2a01:4f8::10", "2a01:4f8::20"):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((here, 20000 + int(sys.argv[1])))
    s.settimeout(5)
    s.sendto(bytes(int(sys.argv[1])), (there, 5300))
    s.recv(65535)
' "$1"
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

# lines writes nfdump's JSON one record a line. Unlike CSV it has milliseconds.
lines() {
	python3 -c '
import json, sys
text = sys.stdin.read().strip("[], \n")
while text:
    record, end = json.JSONDecoder().raw_decode(text)
    text = text[end:].lstrip(", \n")
    print(json.dumps({k: v for k, v in record.items() if k not in ("type", "label", "src_net", "dst_net")}))
'
}
