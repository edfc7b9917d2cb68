// SPDX-License-Identifier: BSD-3-Clause

package prefix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
)

func contains(s *Set, a netip.Addr) bool {
	var b [16]byte
	copy(b[:], a.AsSlice())
	family := flow.IPv6
	if a.Is4() {
		family = flow.IPv4
	}
	return s.Contains(family, &b)
}

func (s *Set) mayOf(a netip.Addr) bool {
	var b [16]byte
	copy(b[:], a.AsSlice())
	if a.Is4() {
		return s.May(flow.IPv4, &b)
	}
	return s.May(flow.IPv6, &b)
}

// randomPrefix is one of a small corner of the addresses, so that they overlap and
// touch, or of all.
func randomPrefix(random *rand.Rand) netip.Prefix {
	var b [16]byte
	n := random.Uint64()
	if random.IntN(2) == 0 {
		n &= 0xff
		if random.IntN(2) == 0 {
			n = ^n
		}
	}
	if random.IntN(2) == 0 {
		binary.BigEndian.PutUint32(b[:], uint32(n))
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(b[:4])), 32-random.IntN(6)).Masked()
	}
	binary.BigEndian.PutUint64(b[8:], n)
	if random.IntN(2) == 0 {
		binary.BigEndian.PutUint64(b[:], n)
		return netip.PrefixFrom(netip.AddrFrom16(b), random.IntN(129)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16(b), 128-random.IntN(6)).Masked()
}

// TestASetIsWhatItsPrefixesAre compares sets, and what is left of one without
// another, with the prefixes one by one.
func TestASetIsWhatItsPrefixesAre(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var sets [2]*Set
		var prefixes [2][]netip.Prefix
		for i := range sets {
			var b Builder
			for range random.IntN(200) {
				p := randomPrefix(random)
				prefixes[i] = append(prefixes[i], p)
				b.Add(p)
			}
			sets[i] = b.Set().Sieved()
		}
		in := func(i int, a netip.Addr) bool {
			for _, p := range prefixes[i] {
				if p.Contains(a) {
					return true
				}
			}
			return false
		}
		minus := sets[0].Minus(sets[1])
		for range 100 {
			a := randomPrefix(random).Addr()
			if random.IntN(2) == 0 {
				a = a.Prev()
			}
			if !a.IsValid() {
				continue
			}
			for i, s := range sets {
				k := flow.Key{Family: flow.IPv6}
				if a.Is4() {
					k.Family = flow.IPv4
				}
				copy(k.Dst[:], a.AsSlice())
				if s.HasEither(&k) && !s.MayEither(&k) || in(i, a) && !s.HasEither(&k) {
					t.Fatalf("%v as an end falls through the sieve of %v", a, prefixes[i])
				}
				if !s.mayOf(a) && in(i, a) {
					t.Fatalf("%v falls through the sieve of %v", a, prefixes[i])
				}
				if got, want := contains(s, a), in(i, a); got != want {
					t.Fatalf("%v in %v: %v", a, prefixes[i], got)
				}
			}
			if got, want := contains(minus, a), in(0, a) && !in(1, a); got != want {
				t.Fatalf("%v in %v without %v: %v", a, prefixes[0], prefixes[1], got)
			}
		}
	}
}

func TestEdgesOfTheAddresses(t *testing.T) {
	var b Builder
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		b.Add(netip.MustParsePrefix(p))
	}
	all := b.Set()
	for _, p := range []string{"0.0.0.0/32", "255.255.255.255/32", "::/128", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"} {
		b.Add(netip.MustParsePrefix(p))
	}
	edges := b.Set()
	inner := all.Minus(edges)
	for _, c := range []struct {
		addr string
		edge bool
	}{
		{"0.0.0.0", true}, {"0.0.0.1", false}, {"255.255.255.255", true}, {"255.255.255.254", false},
		{"::", true}, {"::1", false}, {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true}, {"0:0:0:1::", false},
	} {
		a := netip.MustParseAddr(c.addr)
		if !contains(all, a) || contains(edges, a) != c.edge || contains(inner, a) == c.edge {
			t.Errorf("%s: all %v, edges %v, inner %v", a, contains(all, a), contains(edges, a), contains(inner, a))
		}
	}
	if (&Set{}).Contains(flow.IPv4, new([16]byte)) || all.Contains(0, new([16]byte)) {
		t.Error("an empty set, or a family that is none, has an address")
	}
	if contains(all.Minus(all), netip.MustParseAddr("::")) || all.Minus(all).Has(flow.IPv4) {
		t.Error("something is left of all without all")
	}
}

func TestReadList(t *testing.T) {
	s, n, err := ReadList(strings.NewReader("# ours\n\n192.0.2.0/24 ; SBL1\n2001:db8::/32#x\r\n 198.51.100.7,comment\n;\n"), 3)
	if err != nil || n != 3 {
		t.Fatalf("%d, %v", n, err)
	}
	for a, want := range map[string]bool{"192.0.2.255": true, "192.0.3.0": false, "2001:db8::1": true, "198.51.100.7": true, "198.51.100.8": false} {
		if want && !s.mayOf(netip.MustParseAddr(a)) || a == "198.51.100.8" && s.mayOf(netip.MustParseAddr("9.9.9.9")) {
			t.Errorf("the sieve, of %s", a)
		}
		if contains(s, netip.MustParseAddr(a)) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
	for text, want := range map[string]string{
		"192.0.2.0/24\nx": `line 2: "x"`, "192.0.2.0/33": "line 1", "fe80::1%eth0": "line 1",
		strings.Repeat("x", 600): "line 1 is longer", "1.1.1.1\n1.1.1.2\n1.1.1.3\n1.1.1.4": "line 4",
	} {
		if _, _, err := ReadList(strings.NewReader(text), 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
	if _, _, err := ReadList(strings.NewReader("::\n::1"), 1); !errors.Is(err, ErrMany) {
		t.Errorf("%v", err)
	}
}

// TestAMillionPrefixes of IPv4 are 8 MB, and a set of them is as good as one of few.
func TestAMillionPrefixes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var text bytes.Buffer
	const million = 1_000_000
	for range million {
		fmt.Fprintf(&text, "%d.%d.%d.%d/31\n", 1+random.IntN(222), random.IntN(256), random.IntN(256), random.IntN(256))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, n, err := ReadList(bytes.NewReader(text.Bytes()), million)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if err != nil || n != million {
		t.Fatalf("%d, %v", n, err)
	}
	kept := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	t.Logf("%d ranges, %.1f MB", len(s.v4), kept/1e6)
	if kept > 12e6 {
		t.Errorf("%.1f MB are kept", kept/1e6)
	}
	for _, line := range strings.Fields(text.String())[:100_000] {
		p := netip.MustParsePrefix(line).Masked()
		if !contains(s, p.Addr()) {
			t.Fatalf("%s is not in the set", p)
		}
	}
	if contains(s, netip.MustParseAddr("224.0.0.0")) || contains(s, netip.MustParseAddr("0.255.255.255")) {
		t.Error("addresses are in the set that no prefix has")
	}
	if n := testing.AllocsPerRun(1000, func() { s.Contains(flow.IPv4, &[16]byte{9, 9}) }); n != 0 {
		t.Errorf("%v allocations a look-up", n)
	}
}

func FuzzReadList(f *testing.F) {
	f.Add([]byte("192.0.2.0/24 ; SBL1\n2001:db8::/32#x\n"))
	f.Add([]byte("0.0.0.0/0\n::/0\n255.255.255.255"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, n, err := ReadList(bytes.NewReader(b), 100)
		if err != nil {
			return
		}
		if n > 100 || len(s.v4)+len(s.v6) > n {
			t.Errorf("%d ranges of %d prefixes", len(s.v4)+len(s.v6), n)
		}
		ReadLines(bytes.NewReader(b), func(line []byte) error {
			if i := bytes.IndexAny(line, ends); i >= 0 {
				line = line[:i]
			}
			if p, err := Parse(string(line)); err == nil && !contains(s, p.Addr()) {
				t.Errorf("%v is not in its list", p)
			}
			return nil
		})
	})
}

func BenchmarkContainsAMillion(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	var build Builder
	for range 1_000_000 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], random.Uint32())
		build.Add(netip.PrefixFrom(netip.AddrFrom4(a), 32))
	}
	s := build.Set()
	var a [16]byte
	for b.Loop() {
		binary.BigEndian.PutUint32(a[:], random.Uint32())
		s.Contains(flow.IPv4, &a)
	}
}
