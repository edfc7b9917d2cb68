// SPDX-License-Identifier: BSD-3-Clause

// Package evidence is what is known of a flow beyond its record. It is asked on
// the cold side, for flows that were selected.
package evidence

import (
	"errors"
	"net/netip"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
)

// A NAT names flows as the Internet sees them: in the place of a private end it
// puts what a network address translation has made of it. It is not safe for
// concurrent use.
type NAT struct {
	// Reachable tells whether an address may be named.
	Reachable func(netip.Addr) bool
	// Lookup asks the connection tracking of this router; nil if it is not to be
	// asked. conntrack.ErrNone is no failure.
	Lookup func(*flow.Key) (conntrack.Entry, error)
	NATCounters
	Failure error // the last one of Lookup
}

// NATCounters are of records with a private end.
type NATCounters struct {
	Translated uint64 // their private ends were replaced
	Unknown    uint64 // no translation is known of all of them
	Failed     uint64 // likewise, as Lookup failed
}

// Translate replaces the private ends of a record, by the translation that the
// record bears itself or by that of the connection that it is of. An end of which
// none is known is left as it is: the record must not leave.
func (n *NAT) Translate(r *flow.Record) {
	if n.public(r) {
		return
	}
	n.replace(r, translated(r))
	if !n.public(r) && n.Lookup != nil {
		e, err := n.Lookup(&r.Key)
		if err == nil {
			if other, ok := e.Other(&r.Key); ok {
				n.replace(r, other)
			}
		} else if !errors.Is(err, conntrack.ErrNone) {
			n.Failed++
			n.Failure = err
			return
		}
	}
	if n.public(r) {
		n.Translated++
	} else {
		n.Unknown++
	}
}

func (n *NAT) public(r *flow.Record) bool {
	return n.Reachable(r.SrcAddr()) && n.Reachable(r.DstAddr())
}

// replace puts the ends of another key in the place of those that are private.
func (n *NAT) replace(r *flow.Record, other flow.Key) {
	if other.Family != r.Family {
		return
	}
	key := r.Key
	if !n.Reachable(r.SrcAddr()) && n.Reachable(other.SrcAddr()) {
		key.Src, key.SrcPort = other.Src, other.SrcPort
	}
	if !n.Reachable(r.DstAddr()) && n.Reachable(other.DstAddr()) {
		key.Dst, key.DstPort = other.Dst, other.DstPort
	}
	r.Key = key
}

// translated returns the key that a record says its packets bore behind the
// exporter.
func translated(r *flow.Record) flow.Key {
	k := r.Key
	if r.Known&flow.HasTranslatedSrc != 0 {
		k.Src = r.TranslatedSrc
	}
	if r.Known&flow.HasTranslatedDst != 0 {
		k.Dst = r.TranslatedDst
	}
	if r.Known&flow.HasTranslatedPorts != 0 && r.Known&flow.HasPorts != 0 {
		k.SrcPort, k.DstPort = r.TranslatedSrcPort, r.TranslatedDstPort
	}
	return k
}
