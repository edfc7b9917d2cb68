// SPDX-License-Identifier: BSD-3-Clause

package policy

import "net/netip"

// reach is what a registry's column "Globally Reachable" says.
type reach uint8

const (
	no  reach = iota
	yes       // globally reachable
	na        // not applicable: not a place of its own
)

// block is a row of a registry.
type block struct {
	prefix netip.Prefix
	reach  reach
	name   string
}

func row(prefix string, r reach, name string) block {
	return block{netip.MustParsePrefix(prefix), r, name}
}

// registry returns the IANA IPv4 and IPv6 Special-Purpose Address Registries
// (RFC 6890, RFC 8190), and behind them what is no unicast address and so no
// part of them. The most specific row that holds an address decides.
func registry() []block {
	return []block{
		row("0.0.0.0/8", no, "This network"),
		row("0.0.0.0/32", no, "This host on this network"),
		row("10.0.0.0/8", no, "Private-Use"),
		row("100.64.0.0/10", no, "Shared Address Space"),
		row("127.0.0.0/8", no, "Loopback"),
		row("169.254.0.0/16", no, "Link Local"),
		row("172.16.0.0/12", no, "Private-Use"),
		row("192.0.0.0/24", no, "IETF Protocol Assignments"),
		row("192.0.0.0/29", no, "IPv4 Service Continuity Prefix"),
		row("192.0.0.8/32", no, "IPv4 dummy address"),
		row("192.0.0.9/32", yes, "Port Control Protocol Anycast"),
		row("192.0.0.10/32", yes, "Traversal Using Relays around NAT Anycast"),
		row("192.0.0.170/32", no, "NAT64/DNS64 Discovery"),
		row("192.0.0.171/32", no, "NAT64/DNS64 Discovery"),
		row("192.0.2.0/24", no, "Documentation (TEST-NET-1)"),
		row("192.31.196.0/24", yes, "AS112-v4"),
		row("192.52.193.0/24", yes, "AMT"),
		row("192.88.99.0/24", na, "Deprecated (6to4 Relay Anycast)"),
		row("192.88.99.2/32", no, "6a44-relay anycast address"),
		row("192.168.0.0/16", no, "Private-Use"),
		row("192.175.48.0/24", yes, "Direct Delegation AS112 Service"),
		row("198.18.0.0/15", no, "Benchmarking"),
		row("198.51.100.0/24", no, "Documentation (TEST-NET-2)"),
		row("203.0.113.0/24", no, "Documentation (TEST-NET-3)"),
		row("240.0.0.0/4", no, "Reserved"),
		row("255.255.255.255/32", no, "Limited Broadcast"),

		row("::1/128", no, "Loopback Address"),
		row("::/128", no, "Unspecified Address"),
		row("::ffff:0:0/96", no, "IPv4-mapped Address"),
		row("64:ff9b::/96", yes, "IPv4-IPv6 Translat."),
		row("64:ff9b:1::/48", no, "IPv4-IPv6 Translat."),
		row("100::/64", no, "Discard-Only Address Block"),
		row("100:0:0:1::/64", no, "Dummy IPv6 Prefix"),
		row("2001::/23", no, "IETF Protocol Assignments"),
		row("2001::/32", na, "TEREDO"),
		row("2001:1::1/128", yes, "Port Control Protocol Anycast"),
		row("2001:1::2/128", yes, "Traversal Using Relays around NAT Anycast"),
		row("2001:1::3/128", yes, "DNS-SD Service Registration Protocol Anycast"),
		row("2001:2::/48", no, "Benchmarking"),
		row("2001:3::/32", yes, "AMT"),
		row("2001:4:112::/48", yes, "AS112-v6"),
		row("2001:10::/28", na, "Deprecated (previously ORCHID)"),
		row("2001:20::/28", yes, "ORCHIDv2"),
		row("2001:30::/28", yes, "Drone Remote ID Protocol Entity Tags (DETs) Prefix"),
		row("2001:db8::/32", no, "Documentation"),
		row("2002::/16", na, "6to4"),
		row("2620:4f:8000::/48", yes, "Direct Delegation AS112 Service"),
		row("3fff::/20", no, "Documentation"),
		row("5f00::/16", no, "Segment Routing (SRv6) SIDs"),
		row("fc00::/7", no, "Unique-Local"),
		row("fe80::/10", no, "Link-Local Unicast"),

		row("224.0.0.0/4", no, "multicast (RFC 5771)"),
		row("ff00::/8", no, "multicast (RFC 4291, section 2.7)"),
		// Of IPv6 only 2000::/3 is global unicast (RFC 4291, section 2.4).
		row("::/0", no, "not assigned as global unicast"),
		row("2000::/3", yes, "global unicast"),
		row("0.0.0.0/0", yes, "unicast"),
	}
}

// barred holds what the owner cannot open either: an address that is no single
// host on the network, or is this one.
var barred = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/128"),
	netip.MustParsePrefix("::1/128"),
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}
