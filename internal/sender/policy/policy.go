// SPDX-License-Identifier: BSD-3-Clause

// Package policy decides who may be told about a flow. It is a table: the IANA
// special-purpose registries, our own addresses, and a few ports.
package policy

import (
	"net/netip"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
)

// Reason why an end of a flow is not told, or Allowed.
type Reason uint8

const (
	Allowed Reason = iota
	// Tracer: the flow is one of tracers, 65535/udp at either end.
	Tracer
	// Export: the flow is flow export traffic to us.
	Export
	// Unreachable: one of the two ends is not globally reachable. The flow is
	// told to neither, as a private address must not leave.
	Unreachable
	// Own: this end is one of our own addresses, or a broadcast address of our
	// own networks. The other end may be told.
	Own
	// Same: source and destination are one address.
	Same
	Reasons
)

var reasonTexts = [Reasons]string{"allowed", "flow of tracers", "flow export to us", "an end is not globally reachable",
	"our own address", "source is destination"}

func (r Reason) String() string { return reasonTexts[r] }

const tracerPort = 65535

// A Policy is safe for concurrent use.
type Policy struct {
	registry []block
	private  []netip.Prefix
	ports    []uint16
	own      atomic.Pointer[own]
}

type own struct {
	addrs map[netip.Addr]bool // true: ours; false: a broadcast address
}

// New returns a policy. Addresses in the prefixes called private may be told
// and named although a registry says that they are not globally reachable;
// loopback, link-local, multicast, broadcast and unspecified ones never are.
// exportPorts are the UDP ports at which we take flow export datagrams.
func New(private []netip.Prefix, exportPorts ...uint16) *Policy {
	p := &Policy{registry: registry(), private: private, ports: exportPorts}
	p.own.Store(&own{})
	return p
}

// SetOwn replaces our own addresses, each with the prefix of its network.
func (p *Policy) SetOwn(prefixes []netip.Prefix) {
	o := &own{addrs: make(map[netip.Addr]bool, 3*len(prefixes))}
	for _, n := range prefixes {
		if n.Addr().Is4() && n.Bits() < 31 { // RFC 919; a /31 has no broadcast address (RFC 3021)
			first, last := n.Masked().Addr().As4(), n.Masked().Addr().As4()
			for i := range last {
				last[i] |= byte(uint64(0xffffffff) >> n.Bits() >> (8 * (3 - i)))
			}
			o.addrs[netip.AddrFrom4(first)] = false
			o.addrs[netip.AddrFrom4(last)] = false
		}
	}
	for _, n := range prefixes {
		o.addrs[n.Addr()] = true
	}
	p.own.Store(o)
}

// Verdict says which end of a flow may be told.
type Verdict struct{ Src, Dst Reason }

// Check decides about both ends of a flow. It does not allocate.
func (p *Policy) Check(k *flow.Key) Verdict {
	src, dst := k.SrcAddr(), k.DstAddr()
	own := p.own.Load().addrs
	whole := Allowed
	switch {
	case k.Protocol == 17 && (k.SrcPort == tracerPort || k.DstPort == tracerPort):
		whole = Tracer
	case k.Protocol == 17 && own[dst] && p.isExport(k.DstPort):
		whole = Export
	case !p.reachable(src) || !p.reachable(dst):
		whole = Unreachable
	case src == dst:
		whole = Same
	}
	if whole != Allowed {
		return Verdict{whole, whole}
	}
	v := Verdict{}
	if _, ours := own[src]; ours {
		v.Src = Own
	}
	if _, ours := own[dst]; ours {
		v.Dst = Own
	}
	return v
}

func (p *Policy) isExport(port uint16) bool {
	for _, x := range p.ports {
		if x == port {
			return true
		}
	}
	return false
}

// reachable tells whether a packet to the address goes to one host on the
// Internet, or one that the owner opened.
func (p *Policy) reachable(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	if contains(p.private, a) && !contains(barred[:], a) {
		return true
	}
	best := -1
	r := no
	for i := range p.registry {
		if b := &p.registry[i]; b.prefix.Bits() > best && b.prefix.Contains(a) {
			best, r = b.prefix.Bits(), b.reach
		}
	}
	if r == yes && nat64.Contains(a) { // as reachable as the address that it stands for
		b := a.As16()
		return p.reachable(netip.AddrFrom4([4]byte(b[12:])))
	}
	return r == yes
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
