// SPDX-License-Identifier: BSD-3-Clause

// Package policy decides who may be told about a flow. It is a table: the IANA
// special-purpose registries, our own addresses, and a few ports.
package policy

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
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
	// Never: the owner said that this end is not to be told. The other end may be.
	Never
	// Reasons is how many there are: the size of an array of counters.
	Reasons
)

var reasonTexts = [Reasons]string{"allowed", "flow of tracers", "flow export to us", "an end is not globally reachable",
	"our own address", "source is destination", "never to be told"}

var reasonNames = [Reasons]string{"allowed", "tracer", "export", "unreachable", "own", "same", "never"}

// String returns a few lower-case words.
func (r Reason) String() string { return reasonTexts[r] }

// Name returns the word that stands for the reason in the status.
func (r Reason) Name() string { return reasonNames[r] }

const (
	udp        = 17
	tracerPort = 65535
)

// A Policy is safe for concurrent use.
type Policy struct {
	registry []block
	private  []netip.Prefix
	silent   []netip.Prefix // that are never told
	ports    []uint16
	own      atomic.Pointer[own]
}

// own holds our addresses, true, and those that also mean us or all our
// neighbours, false.
type own map[netip.Addr]bool

// New returns a policy. Addresses in the prefixes called private may be told
// and named although a registry says that they are not globally reachable;
// loopback, link-local, multicast, limited broadcast, unspecified, IPv4-mapped
// and IPv4-compatible ones never are. exportPorts are the UDP ports at which we
// take flow export datagrams; 0 is none.
func New(private []netip.Prefix, exportPorts ...uint16) *Policy {
	p := &Policy{registry: registry(), private: slices.Clone(private), ports: slices.Clone(exportPorts)}
	p.own.Store(&own{})
	return p
}

// SetNever has addresses never told, as those by which equipment is managed. It comes
// before any other use.
func (p *Policy) SetNever(prefixes []netip.Prefix) { p.silent = slices.Clone(prefixes) }

func (p *Policy) never(a netip.Addr) bool {
	v4, through := translated(a)
	for _, n := range p.silent {
		if n.Contains(a) || through && n.Contains(v4) {
			return true
		}
	}
	return false
}

// SetOwn replaces our own addresses, each with the length of its network's
// prefix.
func (p *Policy) SetOwn(prefixes []netip.Prefix) {
	o := make(own, 3*len(prefixes))
	for _, n := range prefixes {
		first, last, ok := shared(n)
		if !ok {
			continue
		}
		o[first] = false
		if last.Is4() {
			o[last] = false
		}
	}
	for _, n := range prefixes {
		o[n.Addr()] = true
	}
	p.own.Store(&o)
}

// shared returns a network's first and last address, if they are of no single
// host. In IPv4 both are broadcast addresses (RFC 919; RFC 1122, section
// 3.3.6) unless there are but two (RFC 3021). In IPv6 the first one is any
// router, such as we are (RFC 4291, section 2.6.1), unless there are but two
// (RFC 6164).
func shared(n netip.Prefix) (first, last netip.Addr, ok bool) {
	if !n.IsValid() || n.Bits() > n.Addr().BitLen()-2 {
		return first, last, false
	}
	first = n.Masked().Addr()
	b := first.AsSlice()
	for i := n.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, ok = netip.AddrFromSlice(b)
	return first, last, ok
}

// Verdict says of each end of a flow why it is not told, or Allowed.
type Verdict struct{ Src, Dst Reason }

// Check decides about both ends of a flow. It does not allocate.
func (p *Policy) Check(k *flow.Key) Verdict {
	src, dst := k.SrcAddr(), k.DstAddr()
	own := *p.own.Load()
	whole := Allowed
	switch {
	case k.Protocol == udp && (k.SrcPort == tracerPort || k.DstPort == tracerPort):
		whole = Tracer
	// Port 0 is also what a fragment has, which holds no ports.
	case k.Protocol == udp && k.DstPort != 0 && own[dst] && slices.Contains(p.ports, k.DstPort):
		whole = Export
	case !p.reachable(src) || !p.reachable(dst):
		whole = Unreachable
	case src == dst:
		whole = Same
	}
	if whole != Allowed {
		return Verdict{whole, whole}
	}
	var v Verdict
	v.Src, v.Dst = p.end(own, src), p.end(own, dst)
	return v
}

func (p *Policy) end(o own, a netip.Addr) Reason {
	switch {
	case o.has(a):
		return Own
	case p.never(a):
		return Never
	}
	return Allowed
}

func (o own) has(a netip.Addr) bool {
	if v4, ok := translated(a); ok {
		a = v4
	}
	_, ok := o[a]
	return ok
}

// Mine tells whether an address is one of our own.
func (p *Policy) Mine(a netip.Addr) bool { return (*p.own.Load())[a] }

// Special returns the addresses that the registries give to no network on the Internet
// and that the owner did not open, multicast among them. Of those whose standing they
// leave open, as 6to4, there are none.
func (p *Policy) Special() *prefix.Set {
	var set prefix.Builder
	for bits := range 129 { // the most specific one decides
		for _, b := range p.registry {
			if b.prefix.Bits() != bits {
				continue
			}
			if b.reach == yes || b.reach == na {
				set.Cut(b.prefix)
			} else {
				set.Add(b.prefix)
			}
		}
	}
	for _, n := range p.private {
		set.Cut(n)
	}
	return set.Set().Sieved()
}

// Reachable tells whether an address may be named: a packet to it goes to one host
// on the Internet, or to one that the owner opened.
func (p *Policy) Reachable(a netip.Addr) bool { return p.reachable(a) }

// Public tells whether a registry says that an address is globally reachable, and it is
// none of ours, whatever the owner opened.
func (p *Policy) Public(a netip.Addr) bool {
	return (&Policy{registry: p.registry}).reachable(a) && !(*p.own.Load()).has(a) && !p.never(a)
}

// reachable tells whether a packet to the address goes to one host on the
// Internet, or to one that the owner opened. The zero Addr is in no block.
func (p *Policy) reachable(a netip.Addr) bool {
	best, r := -1, never
	for i := range p.registry {
		if b := &p.registry[i]; b.prefix.Bits() > best && b.prefix.Contains(a) {
			best, r = b.prefix.Bits(), b.reach
		}
	}
	switch r {
	case yes:
		v4, ok := translated(a)
		return !ok || p.reachable(v4)
	case no, na:
		for _, n := range p.private {
			if n.Contains(a) {
				return true
			}
		}
	}
	return false
}

// translated returns the IPv4 address that a NAT64 sends to when a packet goes
// to 64:ff9b::/96 (RFC 6052, section 2.1).
func translated(a netip.Addr) (v4 netip.Addr, ok bool) {
	if !a.Is6() {
		return v4, false
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:])), [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}
}
