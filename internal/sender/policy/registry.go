// SPDX-License-Identifier: BSD-3-Clause

package policy

import "net/netip"

// reach says who may be told of the addresses in a block.
type reach uint8

const (
	never reach = iota // not even at the owner's word: no single host, or on this link only
	no                 // not globally reachable: only at the owner's word
	na                 // "N/A", or withdrawn; the same as no
	yes                // globally reachable
)

type block struct {
	prefix netip.Prefix
	reach  reach
}

// registry returns the IANA IPv4 and IPv6 Special-Purpose Address Registries
// (RFC 6890, RFC 8190) as of August 2026, in their order, and behind them what
// is no part of them. The most specific block that holds an address decides;
// there is one for every address. Names are comments: they cost flash.
func registry() []block {
	r := func(prefix string, r reach) block { return block{netip.MustParsePrefix(prefix), r} }
	return []block{
		r("0.0.0.0/8", never),          // "This network", RFC 791
		r("0.0.0.0/32", never),         // "This host on this network", RFC 1122
		r("10.0.0.0/8", no),            // Private-Use, RFC 1918
		r("100.64.0.0/10", no),         // Shared Address Space, RFC 6598
		r("127.0.0.0/8", never),        // Loopback, RFC 1122
		r("169.254.0.0/16", never),     // Link Local, RFC 3927
		r("172.16.0.0/12", no),         // Private-Use, RFC 1918
		r("192.0.0.0/24", no),          // IETF Protocol Assignments, RFC 6890
		r("192.0.0.0/29", no),          // IPv4 Service Continuity Prefix, RFC 7335
		r("192.0.0.8/32", no),          // IPv4 dummy address, RFC 7600
		r("192.0.0.9/32", yes),         // Port Control Protocol Anycast, RFC 7723
		r("192.0.0.10/32", yes),        // Traversal Using Relays around NAT Anycast, RFC 8155
		r("192.0.0.170/32", no),        // NAT64/DNS64 Discovery, RFC 7050, RFC 8880
		r("192.0.0.171/32", no),        // NAT64/DNS64 Discovery, RFC 7050, RFC 8880
		r("192.0.2.0/24", no),          // Documentation (TEST-NET-1), RFC 5737
		r("192.31.196.0/24", yes),      // AS112-v4, RFC 7535
		r("192.52.193.0/24", yes),      // AMT, RFC 7450
		r("192.88.99.0/24", na),        // Deprecated (6to4 Relay Anycast), RFC 7526
		r("192.88.99.2/32", no),        // 6a44-relay anycast address, RFC 6751
		r("192.168.0.0/16", no),        // Private-Use, RFC 1918
		r("192.175.48.0/24", yes),      // Direct Delegation AS112 Service, RFC 7534
		r("198.18.0.0/15", no),         // Benchmarking, RFC 2544
		r("198.51.100.0/24", no),       // Documentation (TEST-NET-2), RFC 5737
		r("203.0.113.0/24", no),        // Documentation (TEST-NET-3), RFC 5737
		r("240.0.0.0/4", no),           // Reserved, RFC 1112
		r("255.255.255.255/32", never), // Limited Broadcast, RFC 919, RFC 8190

		r("::1/128", never),         // Loopback Address, RFC 4291
		r("::/128", never),          // Unspecified Address, RFC 4291
		r("::ffff:0:0/96", never),   // IPv4-mapped Address, RFC 4291
		r("64:ff9b::/96", yes),      // IPv4-IPv6 Translat., RFC 6052
		r("64:ff9b:1::/48", no),     // IPv4-IPv6 Translat., RFC 8215
		r("100::/64", no),           // Discard-Only Address Block, RFC 6666
		r("100:0:0:1::/64", no),     // Dummy IPv6 Prefix, RFC 9780
		r("2001::/23", no),          // IETF Protocol Assignments, RFC 2928
		r("2001::/32", na),          // TEREDO, RFC 4380, RFC 8190
		r("2001:1::1/128", yes),     // Port Control Protocol Anycast, RFC 7723
		r("2001:1::2/128", yes),     // Traversal Using Relays around NAT Anycast, RFC 8155
		r("2001:1::3/128", yes),     // DNS-SD Service Registration Protocol Anycast, RFC 9665
		r("2001:2::/48", no),        // Benchmarking, RFC 5180
		r("2001:3::/32", yes),       // AMT, RFC 7450
		r("2001:4:112::/48", yes),   // AS112-v6, RFC 7535
		r("2001:10::/28", na),       // Deprecated (previously ORCHID), RFC 4843
		r("2001:20::/28", yes),      // ORCHIDv2, RFC 7343
		r("2001:30::/28", yes),      // Drone Remote ID Protocol Entity Tags (DETs) Prefix, RFC 9374
		r("2001:db8::/32", no),      // Documentation, RFC 3849
		r("2002::/16", na),          // 6to4, RFC 3056
		r("2620:4f:8000::/48", yes), // Direct Delegation AS112 Service, RFC 7534
		r("3fff::/20", no),          // Documentation, RFC 9637
		r("5f00::/16", no),          // Segment Routing (SRv6) SIDs, RFC 9602
		r("fc00::/7", no),           // Unique-Local, RFC 4193, RFC 8190
		r("fe80::/10", never),       // Link-Local Unicast, RFC 4291

		r("0.0.0.0/0", yes),     // what the registry does not name
		r("224.0.0.0/4", never), // multicast, RFC 5771
		r("::/0", no),           // not assigned as global unicast, RFC 4291, section 2.4
		r("2000::/3", yes),      // global unicast
		r("::/96", never),       // deprecated IPv4-compatible, RFC 4291, section 2.5.5.1
		r("fec0::/10", no),      // deprecated site-local, RFC 3879
		r("ff00::/8", never),    // multicast, RFC 4291, section 2.7
	}
}
