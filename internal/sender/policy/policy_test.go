// SPDX-License-Identifier: BSD-3-Clause

package policy

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
)

var (
	good4 = netip.MustParseAddr("45.83.0.1")
	good6 = netip.MustParseAddr("2a01:4f8::1")
)

// key returns a TCP flow between two addresses of one family.
func key(src, dst netip.Addr) flow.Key {
	k := flow.Key{Protocol: 6, SrcPort: 40000, DstPort: 443, Family: flow.IPv6}
	if src.Is4() {
		k.Family = flow.IPv4
	}
	copy(k.Src[:], src.AsSlice())
	copy(k.Dst[:], dst.AsSlice())
	return k
}

func keyOf(src, dst string) flow.Key { return key(netip.MustParseAddr(src), netip.MustParseAddr(dst)) }

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

var (
	toldBoth   = Verdict{}
	unreached  = Verdict{Unreachable, Unreachable}
	toldSource = Verdict{Dst: Own}
	toldDest   = Verdict{Src: Own}
)

func TestKeysThatNoExporterShouldSend(t *testing.T) {
	garbage := keyOf("45.83.0.1", "91.200.16.2")
	for i := 4; i < 16; i++ {
		garbage.Src[i], garbage.Dst[i] = 0xff, byte(i)
	}
	mapped := keyOf("::ffff:45.83.0.1", "::ffff:91.200.16.2")
	mappedAs4 := mapped
	mappedAs4.Family = flow.IPv4 // its first four bytes are zero
	unknown := keyOf("45.83.0.1", "91.200.16.2")
	unknown.Family = 0
	seven := unknown
	seven.Family = 7

	p := New(prefixes("0.0.0.0/0", "::/0"), 2055)
	p.SetOwn([]netip.Prefix{{}}) // what an interface without an address might give
	for _, tt := range []struct {
		name string
		key  flow.Key
		want Verdict
	}{
		{"the zero key", flow.Key{}, unreached},
		{"family 0", unknown, unreached},
		{"family 7", seven, unreached},
		{"IPv4 with bytes behind the address", garbage, toldBoth},
		{"IPv4-mapped IPv6 is not IPv4", mapped, unreached},
		{"IPv4-mapped IPv6 that says it is IPv4", mappedAs4, unreached},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.Check(&tt.key); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if a := netip.MustParseAddr("2a01:4f8::1%eth0"); p.reachable(a) {
		t.Errorf("%v has a zone and is called reachable", a)
	}
}

func TestWellKnownAddresses(t *testing.T) {
	p := New(nil)
	for _, tt := range []struct {
		want bool
		all  []string
	}{
		{true, []string{
			"1.1.1.1", "8.8.8.8", "9.9.9.9", "193.0.14.129", "223.255.255.254", "11.0.0.1", "100.63.0.1", "100.128.0.1",
			"172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.0.1", "192.0.0.9", "198.17.0.1", "198.20.0.1",
			"2606:4700:4700::1111", "2001:4860:4860::8888", "2001:7fd::1", "2a00::1", "2001:200::1", "3ffe::1", "3fff:1000::1",
			"64:ff9b::8.8.8.8", "64:ff9b::c000:9"}},
		{false, []string{
			"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
			"100.64.0.1", "169.254.1.1", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.88.99.2", "198.19.0.1",
			"198.51.100.1", "203.0.113.1", "224.0.0.1", "233.252.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
			"::", "::1", "::2", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::224.0.0.1",
			"64:ff9b::1:0:0:1", "64:ff9b:1::8.8.8.8", "64:ff9b:2::1", "100::1", "100:0:0:1::1", "100:0:0:2::1", "200::1",
			"1fff::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:1::4", "2001:db8::1",
			"2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "e000::1", "fc00::1", "fd12::1", "fe00::1", "fe80::1", "fec0::1",
			"ff02::1", "ff0e::1"}},
	} {
		for _, s := range tt.all {
			a := netip.MustParseAddr(s)
			good := good4
			if a.Is6() {
				good = good6
			}
			want := unreached
			if tt.want {
				want = toldBoth
			}
			for _, k := range []flow.Key{key(a, good), key(good, a)} {
				if got := p.Check(&k); got != want {
					t.Errorf("%v > %v: %v, want %v", k.SrcAddr(), k.DstAddr(), got, want)
				}
			}
		}
	}
}

func TestFlowsThatAreNotToldAtAll(t *testing.T) {
	p := New(nil, 2055, 0)
	p.SetOwn(prefixes("45.83.0.1/24", "2a01:4f8::1/64"))
	for _, tt := range []struct {
		name         string
		src, dst     string
		protocol     uint8
		sport, dport uint16
		want         Verdict
	}{
		{"a tracer", "91.200.16.2", "91.200.16.3", 17, 5000, 65535, Verdict{Tracer, Tracer}},
		{"an answer to a tracer", "91.200.16.2", "91.200.16.3", 17, 65535, 5000, Verdict{Tracer, Tracer}},
		{"a tracer in IPv6", "2a01:4f8:1::1", "2a01:4f8::1", 17, 65535, 65535, Verdict{Tracer, Tracer}},
		{"a tracer with a private end", "10.0.0.1", "91.200.16.3", 17, 1, 65535, Verdict{Tracer, Tracer}},
		{"65535/tcp is no tracer", "91.200.16.2", "91.200.16.3", 6, 65535, 65535, toldBoth},
		{"65535 of ICMP is no port", "91.200.16.2", "91.200.16.3", 1, 0, 65535, toldBoth},
		{"flow export to us", "91.200.16.2", "45.83.0.1", 17, 5000, 2055, Verdict{Export, Export}},
		{"flow export to us from a private address", "10.0.0.1", "45.83.0.1", 17, 5000, 2055, Verdict{Export, Export}},
		{"flow export to us in IPv6", "2a01:4f8:1::1", "2a01:4f8::1", 17, 5000, 2055, Verdict{Export, Export}},
		{"flow export to somebody else", "91.200.16.2", "91.200.16.3", 17, 5000, 2055, toldBoth},
		{"flow export to our broadcast address", "91.200.16.2", "45.83.0.255", 17, 5000, 2055, toldSource},
		{"what leaves our export port", "45.83.0.1", "91.200.16.2", 17, 2055, 5000, toldDest},
		{"tcp to our export port", "91.200.16.2", "45.83.0.1", 6, 5000, 2055, toldSource},
		{"a later fragment to us", "91.200.16.2", "45.83.0.1", 17, 0, 0, toldSource},
		{"from private", "192.168.1.2", "91.200.16.3", 17, 5000, 53, unreached},
		{"to private", "91.200.16.3", "192.168.1.2", 17, 53, 5000, unreached},
		{"to multicast", "91.200.16.3", "239.255.255.250", 17, 1900, 1900, unreached},
		{"from private to us", "192.168.1.2", "45.83.0.1", 6, 5000, 22, unreached},
		{"to itself", "91.200.16.2", "91.200.16.2", 17, 7, 19, Verdict{Same, Same}},
		{"from us to ourselves", "45.83.0.1", "45.83.0.1", 6, 7, 19, Verdict{Same, Same}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := keyOf(tt.src, tt.dst)
			k.Protocol, k.SrcPort, k.DstPort = tt.protocol, tt.sport, tt.dport
			if got := p.Check(&k); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestOwnAddresses(t *testing.T) {
	p := New(nil, 2055)
	p.SetOwn(append(prefixes("45.83.0.77/26", "45.84.0.0/31", "45.85.0.1/32", "45.86.0.1/30", "2a01:4f8:0:1::5/64", "2a01:4f8:0:2::/127"),
		netip.PrefixFrom(netip.MustParseAddr("45.87.0.1"), 33))) // no valid mask: the address counts all the same
	for _, tt := range []struct {
		addr string
		own  bool
	}{
		{"45.83.0.77", true}, {"45.83.0.64", true}, {"45.83.0.127", true},
		{"45.83.0.63", false}, {"45.83.0.65", false}, {"45.83.0.126", false}, {"45.83.0.128", false}, {"45.83.0.255", false},
		{"45.84.0.0", true}, {"45.84.0.1", false}, // the other one of two (RFC 3021)
		{"45.85.0.1", true}, {"45.85.0.0", false}, {"45.85.0.2", false},
		{"45.86.0.0", true}, {"45.86.0.1", true}, {"45.86.0.2", false}, {"45.86.0.3", true},
		{"45.87.0.1", true}, {"45.87.0.0", false},
		{"2a01:4f8:0:1::5", true}, {"2a01:4f8:0:1::", true}, {"2a01:4f8:0:1::6", false}, {"2a01:4f8:0:1:ffff:ffff:ffff:ffff", false},
		{"2a01:4f8:0:2::", true}, {"2a01:4f8:0:2::1", false},
		{"64:ff9b::45.83.0.77", true}, {"64:ff9b::45.83.0.127", true}, {"64:ff9b::45.83.0.78", false},
	} {
		a := netip.MustParseAddr(tt.addr)
		other := netip.MustParseAddr("91.200.16.2")
		if a.Is6() {
			other = good6
		}
		from, to := toldBoth, toldBoth
		if tt.own {
			from, to = toldDest, toldSource
		}
		k := key(a, other)
		if got := p.Check(&k); got != from {
			t.Errorf("from %v: %v, want %v", a, got, from)
		}
		k = key(other, a)
		if got := p.Check(&k); got != to {
			t.Errorf("to %v: %v, want %v", a, got, to)
		}
	}

	k := keyOf("45.83.0.77", "45.85.0.1")
	if got, want := p.Check(&k), (Verdict{Own, Own}); got != want {
		t.Errorf("between two of ours: %v, want %v", got, want)
	}
	p.SetOwn(prefixes("45.85.0.1/32"))
	if got := p.Check(&k); got != toldSource {
		t.Errorf("after our address changed: %v, want %v", got, toldSource)
	}
	for _, all := range []string{"45.83.0.1/0", "2a01:4f8::1/0"} {
		p.SetOwn(prefixes(all))
		k := key(netip.MustParsePrefix(all).Addr(), netip.MustParsePrefix(all).Addr().Next())
		if got := p.Check(&k); got != toldDest {
			t.Errorf("from us with %s: %v, want %v", all, got, toldDest)
		}
	}
}

func TestPrivateEndsAtTheOwnersWord(t *testing.T) {
	all := New(prefixes("0.0.0.0/0", "::/0"))
	some := New(prefixes("10.20.0.0/16", "100.64.0.0/10", "fd00:1::/32", "64:ff9b::/96"))
	for _, tt := range []struct {
		addr      string
		all, some bool
	}{
		{"10.20.3.4", true, true}, {"10.21.3.4", true, false}, {"192.168.1.1", true, false}, {"100.64.1.1", true, true},
		{"192.0.2.1", true, false}, {"192.88.99.1", true, false}, {"240.0.0.1", true, false}, {"8.8.8.8", true, true},
		{"fd00:1::1", true, true}, {"fd00:2::1", true, false}, {"2001:db8::1", true, false}, {"fec0::1", true, false},
		{"2001::1", true, false}, {"64:ff9b:1::1", true, false},
		{"64:ff9b::10.20.3.4", true, true}, {"64:ff9b::10.21.3.4", true, false}, {"64:ff9b::127.0.0.1", false, false},
		{"0.0.0.0", false, false}, {"0.1.2.3", false, false}, {"127.0.0.1", false, false}, {"169.254.1.1", false, false},
		{"224.0.0.1", false, false}, {"239.1.1.1", false, false}, {"255.255.255.255", false, false},
		{"::", false, false}, {"::1", false, false}, {"::8.8.8.8", false, false}, {"::ffff:8.8.8.8", false, false},
		{"fe80::1", false, false}, {"febf::1", false, false}, {"ff02::1", false, false}, {"ff0e::1", false, false},
	} {
		a := netip.MustParseAddr(tt.addr)
		good := good4
		if a.Is6() {
			good = good6
		}
		for _, x := range []struct {
			policy *Policy
			name   string
			told   bool
		}{{all, "all", tt.all}, {some, "some", tt.some}} {
			want := unreached
			if x.told {
				want = toldBoth
			}
			for _, k := range []flow.Key{key(a, good), key(good, a)} {
				if got := x.policy.Check(&k); got != want {
					t.Errorf("%s opened, %v > %v: %v, want %v", x.name, k.SrcAddr(), k.DstAddr(), got, want)
				}
			}
		}
	}
	list := prefixes("10.0.0.0/8")
	p := New(list)
	list[0] = netip.MustParsePrefix("192.168.0.0/16")
	k := keyOf("10.0.0.1", "10.0.0.2")
	if got := p.Check(&k); got != toldBoth {
		t.Errorf("after the caller reused its list: %v, want %v", got, toldBoth)
	}
}

// TestWhateverTheKeyNobodyIsToldWhoMustNot forges keys around every block, our
// own networks and the ports, and judges each verdict by IANA's files.
func TestWhateverTheKeyNobodyIsToldWhoMustNot(t *testing.T) {
	o := newOracle(t)
	rng := rand.New(rand.NewPCG(7, 7))
	own := prefixes("45.83.0.77/26", "10.9.8.7/8", "2a01:4f8:0:1::5/64")
	common := append(prefixes("0.0.0.0/0", "2000::/3"), own...)
	var blocks []netip.Prefix
	for _, b := range registry() {
		blocks = append(blocks, b.prefix)
	}
	ports := []uint16{0, 53, 2055, 65534, 65535}
	private := prefixes("10.9.0.0/16", "fd00::/8", "2001:db8::/32")

	addr := func(is4 bool) (a [16]byte) {
		for {
			b := common[rng.IntN(len(common))]
			if rng.IntN(2) == 0 {
				b = blocks[rng.IntN(len(blocks))]
			}
			if b.Addr().Is4() != is4 {
				continue
			}
			fill := rng.IntN(4) // the first address, the last one, any, as written
			if copy(a[:], b.Masked().Addr().AsSlice()); fill == 3 {
				copy(a[:], b.Addr().AsSlice())
			}
			for i := b.Bits(); i < b.Addr().BitLen(); i++ {
				if fill == 1 || fill == 2 && rng.IntN(2) == 1 {
					a[i/8] |= 0x80 >> (i % 8)
				}
			}
			if is4 && rng.IntN(2) == 0 {
				for i := 4; i < 16; i++ {
					a[i] = byte(rng.Uint32())
				}
			}
			return a
		}
	}
	open := func(a netip.Addr) bool {
		if o.reachable(a) {
			return true
		}
		if b := a.AsSlice(); a.Is6() && bitsOf(a, 96) == bitsOf(netip.MustParseAddr("64:ff9b::"), 96) {
			a = netip.AddrFrom4([4]byte(b[12:]))
			if o.reachable(a) {
				return true
			}
		}
		for _, n := range private {
			if n.Contains(a) {
				return true
			}
		}
		return false
	}
	ours := map[netip.Addr]bool{}
	for _, s := range []string{"45.83.0.77", "45.83.0.64", "45.83.0.127", "10.9.8.7", "10.0.0.0", "10.255.255.255", "2a01:4f8:0:1::5", "2a01:4f8:0:1::"} {
		ours[netip.MustParseAddr(s)] = true
	}

	never := prefixes("192.31.196.0/24")
	for _, opened := range []bool{false, true} {
		var p *Policy
		if opened {
			p = New(private, 2055)
		} else {
			p = New(nil, 2055)
		}
		p.SetOwn(own)
		p.SetNever(never)
		var counts [Reasons]int
		for range 20_000 {
			is4 := rng.IntN(2) == 0
			k := flow.Key{Src: addr(is4), Dst: addr(is4), Protocol: []uint8{1, 6, 17, 17}[rng.IntN(4)], Family: flow.IPv6}
			if is4 {
				k.Family = flow.IPv4
			}
			if rng.IntN(20) == 0 {
				k.Family = flow.Family(rng.Uint32())
			}
			if rng.IntN(20) == 0 {
				k.Dst = k.Src
			}
			k.SrcPort, k.DstPort = ports[rng.IntN(len(ports))], ports[rng.IntN(len(ports))]

			v := p.Check(&k)
			counts[v.Src]++
			counts[v.Dst]++
			if v.Src != Allowed && v.Dst != Allowed {
				continue
			}
			src, dst := k.SrcAddr(), k.DstAddr()
			for _, a := range []netip.Addr{src, dst} {
				if !a.IsValid() || !o.reachable(a) && !(opened && open(a)) {
					t.Fatalf("%v names %v: %+v", v, a, k)
				}
			}
			if v.Src == Allowed && never[0].Contains(src) || v.Dst == Allowed && never[0].Contains(dst) {
				t.Fatalf("%v tells who is never to be told: %v > %v", v, src, dst)
			}
			if v.Src == Allowed && ours[src] || v.Dst == Allowed && ours[dst] {
				t.Fatalf("%v tells ourselves: %v > %v", v, src, dst)
			}
			if k.Protocol == 17 && (k.SrcPort == 65535 || k.DstPort == 65535) {
				t.Fatalf("%v tells of a tracer: %+v", v, k)
			}
			if src == dst {
				t.Fatalf("%v tells of a flow to itself: %+v", v, k)
			}
		}
		for r := Allowed; r < Reasons; r++ {
			if counts[r] == 0 {
				t.Errorf("no key was made that is %q: %v", r, counts)
			}
		}
	}
}

func TestNeverIsNeverByNAT64Either(t *testing.T) {
	p := New(nil)
	p.SetNever(prefixes("91.200.16.0/24", "2a00:1::/32"))
	for to, want := range map[string]Reason{"91.200.16.2": Never, "64:ff9b::5bc8:1002": Never, "2a00:1::2": Never, "91.200.17.2": Allowed, "64:ff9b::5bc8:1102": Allowed} {
		from := "45.83.0.1"
		if strings.Contains(to, ":") {
			from = "2600::1"
		}
		k := keyOf(from, to)
		if v := p.Check(&k); v.Dst != want || p.Public(netip.MustParseAddr(to)) != (want == Allowed) {
			t.Errorf("%s: %s", to, v.Dst)
		}
	}
}

func TestOwnAddressesChangeWhileFlowsAreChecked(t *testing.T) {
	p := New(nil)
	k := keyOf("45.83.0.1", "91.200.16.2")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 1000 {
			if i%2 == 0 {
				p.SetOwn(prefixes("45.83.0.1/24"))
			} else {
				p.SetOwn(nil)
			}
		}
	})
	for range 1000 {
		if v := p.Check(&k); v != toldBoth && v != toldDest {
			t.Errorf("%v", v)
		}
	}
	wg.Wait()
}

func TestReasonsHaveTheirOwnWords(t *testing.T) {
	seen := map[string]bool{}
	for r := Allowed; r < Reasons; r++ {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("reason %d is called %q", r, s)
		} else {
			seen[s] = true
		}
	}
}

func TestCheckDoesNotAllocate(t *testing.T) {
	p := New(prefixes("10.0.0.0/8", "fd00::/8"), 2055)
	p.SetOwn(prefixes("45.83.0.1/24", "2a01:4f8::1/64"))
	keys := []flow.Key{
		keyOf("45.83.0.1", "91.200.16.2"), keyOf("10.0.0.1", "192.168.0.1"), keyOf("64:ff9b::8.8.8.8", "2a01:4f8::1"),
		keyOf("fd00::1", "ff02::1"), {},
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range keys {
			p.Check(&keys[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkCheck(b *testing.B) {
	p := New(nil, 2055)
	p.SetOwn(prefixes("45.83.0.1/24", "2a01:4f8::1/64"))
	k := keyOf("64:ff9b::8.8.8.8", "2a01:4f8::1")
	b.ReportAllocs()
	for b.Loop() {
		p.Check(&k)
	}
}

// TestSpecialIsWhatMayNotBeNamed but for what the registries leave open, and at the
// edges of each block.
func TestSpecialIsWhatMayNotBeNamed(t *testing.T) {
	private := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p := New(private)
	special := p.Special()
	has := func(a netip.Addr) bool {
		var b [16]byte
		copy(b[:], a.AsSlice())
		if a.Is4() {
			return special.Contains(flow.IPv4, &b)
		}
		return special.Contains(flow.IPv6, &b)
	}
	checked := 0
	for _, block := range p.registry {
		first, last := edges(block.prefix)
		for _, a := range []netip.Addr{first, first.Prev(), last, last.Next()} {
			if !a.IsValid() {
				continue
			}
			best, standing := -1, never
			for _, b := range p.registry {
				if b.prefix.Contains(a) && b.prefix.Bits() > best {
					best, standing = b.prefix.Bits(), b.reach
				}
			}
			want := (standing == no || standing == never) && !private[0].Contains(a)
			if got := has(a); got != want {
				t.Errorf("%s: %v", a, got)
			}
			checked++
		}
	}
	if checked < 150 || !has(netip.MustParseAddr("192.168.1.1")) || has(netip.MustParseAddr("8.8.8.8")) || has(netip.MustParseAddr("2002::1")) || !has(netip.MustParseAddr("fd00::1")) {
		t.Errorf("%d addresses were checked", checked)
	}
}

// edges returns the first and the last address of a prefix.
func edges(p netip.Prefix) (first, last netip.Addr) {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ = netip.AddrFromSlice(b)
	return p.Masked().Addr(), last
}
