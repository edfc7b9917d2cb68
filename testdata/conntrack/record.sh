#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Records what the kernel tells of its connections, and what conntrack(8) reads
# of it, into the folder of this script. Three network namespaces, removed at the
# end, of which the middle one translates:
#
#   inner 10.0.0.2 ---- 10.0.0.1 router 198.51.100.1 ---- 198.51.100.2 outer
#         fd00::2       fd00::1         2001:db8::1       2001:db8::2
#
# Needs root and conntrack, nft, ping, python3.
set -eu

out=$(cd "$(dirname "$0")" && pwd)
inner=inner$$ router=router$$ outer=outer$$
pids=

cleanup() {
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || :; done
	for ns in "$inner" "$router" "$outer"; do ip netns del "$ns" 2>/dev/null || :; done
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# link A ADDR4 ADDR6 B ADDR4 ADDR6
link() {
	ip -n "$1" link add "to-${4%%[0-9]*}" type veth peer name "to-${1%%[0-9]*}" netns "$4"
	ip -n "$1" addr add "$2/24" dev "to-${4%%[0-9]*}"
	ip -n "$1" addr add "$3/64" dev "to-${4%%[0-9]*}" nodad
	ip -n "$4" addr add "$5/24" dev "to-${1%%[0-9]*}"
	ip -n "$4" addr add "$6/64" dev "to-${1%%[0-9]*}" nodad
	ip -n "$1" link set "to-${4%%[0-9]*}" up
	ip -n "$4" link set "to-${1%%[0-9]*}" up
}

for ns in "$inner" "$router" "$outer"; do
	ip netns add "$ns"
	ip -n "$ns" link set lo up
done
link "$inner" 10.0.0.2 fd00::2 "$router" 10.0.0.1 fd00::1
link "$router" 198.51.100.1 2001:db8::1 "$outer" 198.51.100.2 2001:db8::2
ip -n "$inner" route add default via 10.0.0.1
ip -n "$inner" -6 route add default via fd00::1
ip netns exec "$router" sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
	net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_checksum=0
ip netns exec "$router" nft -f - <<'EOF'
table inet t {
	chain raw {
		type filter hook prerouting priority raw
		udp dport 7005 ct zone set 5
		udp dport 7006 ct original zone set 6
	}
	chain pre {
		type nat hook prerouting priority dstnat
		iifname to-outer ip daddr 198.51.100.1 tcp dport 8080 dnat to 10.0.0.2:80
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname to-outer masquerade
	}
}
EOF

# netlink dump|destroy FILE writes datagrams of ctnetlink one behind the other,
# of ended connections until it is interrupted.
netlink() {
	exec ip netns exec "$router" python3 - "$@" <<'EOF'
import socket, struct, sys
s = socket.socket(16, 3, 12)  # AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER
s.bind((0, 0 if sys.argv[1] == "dump" else 1 << 2))
if sys.argv[1] == "dump":
    s.send(struct.pack("=IHHIIBBH", 20, 0x101, 0x301, 1, 0, 0, 0, 0))
with open(sys.argv[2], "wb") as f:
    while True:
        b = s.recv(65536)
        f.write(b)
        f.flush()
        if struct.unpack_from("=H", b, 4)[0] == 3:  # NLMSG_DONE
            break
EOF
}

netlink destroy "$out/destroy.bin" &
pids="$pids $!"
ip netns exec "$router" conntrack -E -e DESTROY -o extended,id >"$out/destroy.txt" 2>/dev/null &
pids="$pids $!"
for ns in "$inner" "$outer"; do
	ip netns exec "$ns" python3 - <<'EOF' &
import socket, threading
def echo(c):
    while b := c.recv(9000):
        c.send(b)
def tcp():
    s = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=echo, args=(s.accept()[0],)).start()
threading.Thread(target=tcp).start()
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
u.bind(("::", 53))
while True:
    b, a = u.recvfrom(9000)
    u.sendto(b, a)
EOF
	pids="$pids $!"
done
sleep 1

# talk NAMESPACE tcp|udp ADDRESS PORT BYTES [SOURCE-PORT]
# talk NAMESPACE PROTOCOL ADDRESS 0 HEX
talk() {
	ip netns exec "$1" python3 - "$@" <<'EOF'
import socket, sys
network, addr, port, what = sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
family = socket.AF_INET6 if ":" in addr else socket.AF_INET
kind, proto = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0)}.get(network, (socket.SOCK_RAW, 0))
s = socket.socket(family, kind, proto if kind != socket.SOCK_RAW else int(network))
if len(sys.argv) > 6:
    s.bind(("", int(sys.argv[6])))
s.settimeout(1)
s.connect((addr, port))
s.send(bytes(int(what)) if kind != socket.SOCK_RAW else bytes.fromhex(what))
if port in (53, 80, 8080):
    s.recv(9000)
EOF
}

talk "$inner" tcp 198.51.100.2 80 1000
talk "$inner" tcp 2001:db8::2 80 1200
talk "$outer" tcp 198.51.100.1 8080 500
talk "$inner" udp 198.51.100.2 53 100 5000
talk "$inner" udp 2001:db8::2 53 100 5000
talk "$outer" udp 2001:db8::1 7 10 # the router itself, unreachable
talk "$inner" udp 10.0.0.1 7005 10 # zones
talk "$inner" udp 10.0.0.1 7006 10
ip netns exec "$inner" ping -q -c 2 -i 0.2 198.51.100.2 >/dev/null
ip netns exec "$inner" ping -q -c 3 -i 0.2 2001:db8::2 >/dev/null
talk "$inner" 132 198.51.100.2 0 0bb80bb9000000000000000001000014010203040000ffff0001000100000001     # SCTP INIT
talk "$inner" 33 198.51.100.2 0 0bb80bb904000000000000000001000000000000                             # DCCP request
talk "$inner" 136 198.51.100.2 0 0bb80bb900081234                                                # UDP-Lite
talk "$inner" 47 198.51.100.2 0 0000080045000014                                                           # GRE
talk "$inner" 253 198.51.100.2 0 00010203                                                            # for experiments
talk "$inner" 253 2001:db8::2 0 00010203
ip netns exec "$router" conntrack -I -p gre -s 10.0.0.2 -d 198.51.100.2 --srckey 0x1234 --dstkey 0x5678 -t 100 >/dev/null 2>&1
sleep 0.5

(netlink dump "$out/dump.bin")
ip netns exec "$router" conntrack -L -o extended,id 2>/dev/null >"$out/dump.txt"
ip netns exec "$router" conntrack -D >/dev/null 2>&1 || :
ip netns exec "$router" conntrack -D -f ipv6 >/dev/null 2>&1 || :
sleep 1
