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
	// Text that is read in a loop: a call for each takes 18 kB of code on mips.
	texts := [...]struct {
		prefix string
		reach  reach
	}{
		{"0.0.0.0/8", never},          // "This network", RFC 791
		{"0.0.0.0/32", never},         // "This host on this network", RFC 1122
		{"10.0.0.0/8", no},            // Private-Use, RFC 1918
		{"100.64.0.0/10", no},         // Shared Address Space, RFC 6598
		{"127.0.0.0/8", never},        // Loopback, RFC 1122
		{"169.254.0.0/16", never},     // Link Local, RFC 3927
		{"172.16.0.0/12", no},         // Private-Use, RFC 1918
		{"192.0.0.0/24", no},          // IETF Protocol Assignments, RFC 6890
		{"192.0.0.0/29", no},          // IPv4 Service Continuity Prefix, RFC 7335
		{"192.0.0.8/32", no},          // IPv4 dummy address, RFC 7600
		{"192.0.0.9/32", yes},         // Port Control Protocol Anycast, RFC 7723
		{"192.0.0.10/32", yes},        // Traversal Using Relays around NAT Anycast, RFC 8155
		{"192.0.0.170/32", no},        // NAT64/DNS64 Discovery, RFC 7050, RFC 8880
		{"192.0.0.171/32", no},        // NAT64/DNS64 Discovery, RFC 7050, RFC 8880
		{"192.0.2.0/24", no},          // Documentation (TEST-NET-1), RFC 5737
		{"192.31.196.0/24", yes},      // AS112-v4, RFC 7535
		{"192.52.193.0/24", yes},      // AMT, RFC 7450
		{"192.88.99.0/24", na},        // Deprecated (6to4 Relay Anycast), RFC 7526
		{"192.88.99.2/32", no},        // 6a44-relay anycast address, RFC 6751
		{"192.168.0.0/16", no},        // Private-Use, RFC 1918
		{"192.175.48.0/24", yes},      // Direct Delegation AS112 Service, RFC 7534
		{"198.18.0.0/15", no},         // Benchmarking, RFC 2544
		{"198.51.100.0/24", no},       // Documentation (TEST-NET-2), RFC 5737
		{"203.0.113.0/24", no},        // Documentation (TEST-NET-3), RFC 5737
		{"240.0.0.0/4", no},           // Reserved, RFC 1112
		{"255.255.255.255/32", never}, // Limited Broadcast, RFC 919, RFC 8190

		{"::1/128", never},         // Loopback Address, RFC 4291
		{"::/128", never},          // Unspecified Address, RFC 4291
		{"::ffff:0:0/96", never},   // IPv4-mapped Address, RFC 4291
		{"64:ff9b::/96", yes},      // IPv4-IPv6 Translat., RFC 6052
		{"64:ff9b:1::/48", no},     // IPv4-IPv6 Translat., RFC 8215
		{"100::/64", no},           // Discard-Only Address Block, RFC 6666
		{"100:0:0:1::/64", no},     // Dummy IPv6 Prefix, RFC 9780
		{"2001::/23", no},          // IETF Protocol Assignments, RFC 2928
		{"2001::/32", na},          // TEREDO, RFC 4380, RFC 8190
		{"2001:1::1/128", yes},     // Port Control Protocol Anycast, RFC 7723
		{"2001:1::2/128", yes},     // Traversal Using Relays around NAT Anycast, RFC 8155
		{"2001:1::3/128", yes},     // DNS-SD Service Registration Protocol Anycast, RFC 9665
		{"2001:2::/48", no},        // Benchmarking, RFC 5180
		{"2001:3::/32", yes},       // AMT, RFC 7450
		{"2001:4:112::/48", yes},   // AS112-v6, RFC 7535
		{"2001:10::/28", na},       // Deprecated (previously ORCHID), RFC 4843
		{"2001:20::/28", yes},      // ORCHIDv2, RFC 7343
		{"2001:30::/28", yes},      // Drone Remote ID Protocol Entity Tags (DETs) Prefix, RFC 9374
		{"2001:db8::/32", no},      // Documentation, RFC 3849
		{"2002::/16", na},          // 6to4, RFC 3056
		{"2620:4f:8000::/48", yes}, // Direct Delegation AS112 Service, RFC 7534
		{"3fff::/20", no},          // Documentation, RFC 9637
		{"5f00::/16", no},          // Segment Routing (SRv6) SIDs, RFC 9602
		{"fc00::/7", no},           // Unique-Local, RFC 4193, RFC 8190
		{"fe80::/10", never},       // Link-Local Unicast, RFC 4291

		{"0.0.0.0/0", yes},     // what the registry does not name
		{"224.0.0.0/4", never}, // multicast, RFC 5771
		{"::/0", no},           // not assigned as global unicast, RFC 4291, section 2.4
		{"2000::/3", yes},      // global unicast
		{"::/96", never},       // deprecated IPv4-compatible, RFC 4291, section 2.5.5.1
		{"fec0::/10", no},      // deprecated site-local, RFC 3879
		{"ff00::/8", never},    // multicast, RFC 4291, section 2.7
	}
	blocks := make([]block, len(texts))
	for i, t := range texts {
		blocks[i] = block{netip.MustParsePrefix(t.prefix), t.reach}
	}
	return blocks
}
