// SPDX-License-Identifier: BSD-3-Clause

package routing

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/overflowd/overflowd/internal/nlmsg"
)

// appendRoute is a message's payload, for seeds.
func appendRoute(bits uint8, attributes ...[]byte) []byte {
	b := []byte{familyIPv4, bits, 0, 0, MainTable, 3, 0, 1, 0, 0, 0, 0}
	for i, a := range attributes {
		b = appendAttribute(b, uint16(i+1), a)
	}
	return b
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	whole := appendRoute(24, []byte{192, 0, 2, 0})
	if r, err := ParseRoute(whole); err != nil || r.Prefix != netip.MustParsePrefix("192.0.2.0/24") || r.Kind != Unicast || r.Table != MainTable {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, b := range map[string][]byte{
		"cut":                        whole[:len(whole)-1],
		"without a header":           whole[:11],
		"of a strange family":        append([]byte{7}, whole[1:]...),
		"a prefix that is too long":  appendRoute(33, []byte{192, 0, 2, 0}),
		"an address of IPv6":         appendRoute(24, make([]byte, 16)),
		"an index of 3 bytes":        appendAttribute(appendRoute(0), rtaOIF, []byte{1, 2, 3}),
		"an attribute without a end": append(appendRoute(24), 200, 0, 1, 0),
		"an attribute of no length":  append(appendRoute(24), 0, 0, 0, 0),
	} {
		if r, err := ParseRoute(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	address := appendAttribute([]byte{familyIPv4, 32, 0, 0, 5, 0, 0, 0}, ifaAddress, []byte{198, 51, 100, 1})
	line := appendAttribute(address, ifaLocal, []byte{192, 0, 2, 1})
	if a, err := ParseAddress(line); err != nil || a.Prefix.Addr() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("of two ends of a line: %+v, %v", a, err)
	}
	for name, b := range map[string][]byte{"no address": address[:8], "cut": address[:13], "nothing": nil} {
		if a, err := ParseAddress(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(appendRoute(24, []byte{192, 0, 2, 0}, []byte{1, 0, 0, 0}))
	f.Add(appendAttribute([]byte{familyIPv4, 32, 0, 0, 5, 0, 0, 0}, ifaAddress, []byte{198, 51, 100, 1}))
	f.Add(binary.NativeEndian.AppendUint32(nil, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRoute(b); err == nil && !r.Prefix.IsValid() {
			t.Errorf("%+v", r)
		}
		if a, err := ParseAddress(b); err == nil && !a.Prefix.IsValid() {
			t.Errorf("%+v", a)
		}
		for rest := b; len(rest) > 0; {
			m, next, err := nlmsg.Cut(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("a message of no length")
			}
			m.Err()
			rest = next
		}
	})
}
