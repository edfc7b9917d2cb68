// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/flow"
)

func key(protocol uint8, src, dst string, sport, dport uint16) flow.Key {
	k := flow.Key{Protocol: protocol, Family: flow.IPv4, SrcPort: sport, DstPort: dport}
	if a := netip.MustParseAddr(src); a.Is6() {
		k.Family = flow.IPv6
	}
	copy(k.Src[:], netip.MustParseAddr(src).AsSlice())
	copy(k.Dst[:], netip.MustParseAddr(dst).AsSlice())
	return k
}

func TestAPacketOfAnotherConnectionHasNoOtherSide(t *testing.T) {
	e := Entry{
		Original: key(17, "10.0.0.2", "198.51.100.2", 5000, 53),
		Reply:    key(17, "198.51.100.2", "198.51.100.1", 53, 6000),
	}
	for name, k := range map[string]flow.Key{
		"another port":     key(17, "10.0.0.2", "198.51.100.2", 5001, 53),
		"another address":  key(17, "10.0.0.3", "198.51.100.2", 5000, 53),
		"another protocol": key(6, "10.0.0.2", "198.51.100.2", 5000, 53),
		"half translated":  key(17, "198.51.100.1", "198.51.100.2", 5000, 53),
		"none":             {},
	} {
		if other, ok := e.Other(&k); ok || other != (flow.Key{}) {
			t.Errorf("%s: %+v", name, other)
		}
	}
}

func TestEachFormOfAPacketHasItsOtherSide(t *testing.T) {
	const inner, router, outer = "10.0.0.2", "198.51.100.1", "198.51.100.2"
	for name, c := range map[string]struct {
		entry Entry
		pairs [][2]flow.Key // inner side, outer side
	}{
		"a masqueraded connection": {
			Entry{Original: key(17, inner, outer, 5000, 53), Reply: key(17, outer, router, 53, 6000)},
			[][2]flow.Key{
				{key(17, inner, outer, 5000, 53), key(17, router, outer, 6000, 53)},
				{key(17, outer, inner, 53, 5000), key(17, outer, router, 53, 6000)},
			},
		},
		"a forwarded port": {
			Entry{Original: key(6, outer, router, 7000, 8080), Reply: key(6, inner, outer, 80, 7000)},
			[][2]flow.Key{
				{key(6, outer, inner, 7000, 80), key(6, outer, router, 7000, 8080)},
				{key(6, inner, outer, 80, 7000), key(6, router, outer, 8080, 7000)},
			},
		},
		"nothing translated": {
			Entry{Original: key(6, "2001:db8::1", "2001:db8::2", 7000, 80), Reply: key(6, "2001:db8::2", "2001:db8::1", 80, 7000)},
			[][2]flow.Key{
				{key(6, "2001:db8::1", "2001:db8::2", 7000, 80), key(6, "2001:db8::1", "2001:db8::2", 7000, 80)},
				{key(6, "2001:db8::2", "2001:db8::1", 80, 7000), key(6, "2001:db8::2", "2001:db8::1", 80, 7000)},
			},
		},
		"a masqueraded ping": {
			Entry{Original: key(1, inner, outer, 0, 8<<8), Reply: key(1, outer, router, 0, 0)},
			[][2]flow.Key{
				{key(1, inner, outer, 0, 8<<8), key(1, router, outer, 0, 8<<8)},
				{key(1, outer, inner, 0, 0), key(1, outer, router, 0, 0)},
			},
		},
		"a masqueraded timestamp request": {
			Entry{Original: key(1, inner, outer, 0, 13<<8), Reply: key(1, outer, router, 0, 14<<8)},
			[][2]flow.Key{
				{key(1, inner, outer, 0, 13<<8), key(1, router, outer, 0, 13<<8)},
				{key(1, outer, inner, 0, 14<<8), key(1, outer, router, 0, 14<<8)},
			},
		},
		"a masqueraded ping in IPv6": {
			Entry{Original: key(58, "fd00::2", "2001:db8::2", 0, 128<<8), Reply: key(58, "2001:db8::2", "2001:db8::1", 0, 129<<8)},
			[][2]flow.Key{
				{key(58, "fd00::2", "2001:db8::2", 0, 128<<8), key(58, "2001:db8::1", "2001:db8::2", 0, 128<<8)},
				{key(58, "2001:db8::2", "fd00::2", 0, 129<<8), key(58, "2001:db8::2", "2001:db8::1", 0, 129<<8)},
			},
		},
		"a masqueraded protocol without ports": {
			Entry{Original: key(47, inner, outer, 0, 0), Reply: key(47, outer, router, 0, 0)},
			[][2]flow.Key{
				{key(47, inner, outer, 0, 0), key(47, router, outer, 0, 0)},
				{key(47, outer, inner, 0, 0), key(47, outer, router, 0, 0)},
			},
		},
	} {
		for _, p := range c.pairs {
			for i := range p {
				got, ok := c.entry.Other(&p[i])
				if diff := cmp.Diff(p[1-i], got); !ok || diff != "" {
					t.Errorf("%s: of %v %d -> %v %d (-want +got):\n%s", name, p[i].SrcAddr(), p[i].SrcPort, p[i].DstAddr(), p[i].DstPort, diff)
				}
			}
		}
	}
}

func TestAReversedKeyReversesBack(t *testing.T) {
	for _, protocol := range []uint8{1, 6, 58} {
		for kind := range 256 {
			k := key(protocol, "192.0.2.1", "192.0.2.2", 0, uint16(kind)<<8|3)
			r := reverse(&k)
			if back := reverse(&r); back != k {
				t.Errorf("protocol %d, type %d: %d", protocol, kind, back.DstPort>>8)
			}
		}
	}
}

// TestTheKernelAnswersAsReverseDoes looks at connections that are not translated,
// whose reply is the kernel's own reversal.
func TestTheKernelAnswersAsReverseDoes(t *testing.T) {
	for _, name := range []string{"dump.bin", "destroy.bin"} {
		messages, _ := recorded(t, name)
		kinds := make(map[uint8]int)
		for _, m := range messages {
			var e Entry
			if parse(m.Payload, &e) != nil {
				continue
			}
			k := e.Original
			k.Src = e.Reply.Dst // but for the translation of the source
			if e.Original.Protocol == 6 && e.Original.DstPort == 8080 {
				continue
			}
			if r := reverse(&k); r != e.Reply {
				t.Errorf("%+v, want %+v", r, e.Reply)
			}
			kinds[k.Protocol]++
		}
		for _, protocol := range []uint8{1, 6, 17, 33, 47, 58, 132, 136, 253} {
			if kinds[protocol] == 0 {
				t.Errorf("%s: no connection of protocol %d", name, protocol)
			}
		}
	}
}
