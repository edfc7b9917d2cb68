// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
)

// A Guard knows which sources cannot come in at an interface. It does not change,
// and is safe for concurrent use. A nil Guard knows of none.
type Guard struct {
	lan bool
	// Of a LAN: all that may come in, and whether the interface serves addresses of
	// the family at all.
	allowed          *prefix.Set
	serves4, serves6 bool
	// Of a WAN: addresses of ours, and those of no network.
	ours, special *prefix.Set
}

// check returns Spoofed, Special or nothing about a source. It does not allocate.
func (g *Guard) check(k *flow.Key) Reasons {
	switch {
	case !g.lan:
		if g.ours.Contains(k.Family, &k.Src) {
			return Spoofed
		}
		if g.special.May(k.Family, &k.Src) && g.special.Contains(k.Family, &k.Src) {
			return Special
		}
	case (k.Family == flow.IPv4 && g.serves4 || k.Family == flow.IPv6 && g.serves6) && !g.allowed.Contains(k.Family, &k.Src):
		return Spoofed
	}
	return 0
}
