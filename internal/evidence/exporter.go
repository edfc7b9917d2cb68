// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"net/netip"
	"slices"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
)

// An ExporterInterface is one of a router that exports flows, by its number there.
type ExporterInterface struct {
	Exporters netip.Prefix // which of them
	Index     uint32
	Role      Role
	Prefixes  []netip.Prefix // that it serves, of a LAN
	guard     *Guard
	served    *prefix.Set
}

// Guard returns that of the interface, nil before MakeGuards.
func (i *ExporterInterface) Guard() *Guard { return i.guard }

// MakeGuards prepares the interfaces of exporters. On the side of the Internet, a
// source of any prefix that one of them serves is ours.
func MakeGuards(list []ExporterInterface, special *prefix.Set) []ExporterInterface {
	list = slices.Clone(list)
	var ours prefix.Builder
	for _, i := range list {
		for _, p := range i.Prefixes {
			ours.Add(p)
		}
	}
	all := ours.Set()
	for n := range list {
		i := &list[n]
		if i.Role == WAN {
			i.guard = &Guard{ours: all, special: special}
			continue
		}
		var b prefix.Builder
		for _, p := range i.Prefixes {
			b.Add(p)
		}
		i.served = b.Set()
		for _, text := range none {
			b.Add(netip.MustParsePrefix(text))
		}
		b.AddSet(i.served)
		i.guard = &Guard{lan: true, allowed: b.Set(), serves4: i.served.Has(flow.IPv4), serves6: i.served.Has(flow.IPv6)}
	}
	return list
}

// interfaceOf returns the interface of an exporter, nil if nothing is known of it.
// The first that fits counts.
func interfaceOf(list []ExporterInterface, exporter netip.Addr, index uint32) *ExporterInterface {
	for n := range list {
		if i := &list[n]; i.Index == index && i.Exporters.Contains(exporter) {
			return i
		}
	}
	return nil
}

// exported is about a record of an exporter that tells where the packets came in.
func (x *Origins) exported(r *flow.Record, exporter netip.Addr) Verdict {
	if r.Known&flow.HasIngress == 0 {
		return Verdict{}
	}
	i := interfaceOf(x.o.Exporters, exporter, r.Ingress)
	if i == nil {
		return Verdict{}
	}
	v := Verdict{Point: i.Role}
	switch i.guard.check(&r.Key) {
	case Spoofed:
		v.Spoofed, v.Method = Yes, byPrefix
	case Special:
		v.Spoofed, v.Method = Yes, bySpecial
	case 0:
		if i.Role == LAN && i.served.Contains(r.Family, &r.Src) {
			v.Spoofed, v.Method = No, byPrefix
		}
	}
	return v
}
