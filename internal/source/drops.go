// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"errors"

	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/sflow"
)

// Reason why something that came in, or a part of it, gave no record.
type Reason uint8

const (
	// Of datagrams.
	Stranger Reason = iota // the sender is not among the exporters
	Version                // not a flow protocol that is read here
	Short                  // shorter than its header
	Empty                  // promises no records
	Cut                    // promises more than it holds
	Damaged                // a set or sample of an impossible length, or worse
	// Of parts of datagrams.
	NoTemplate  // data whose template did not come
	BadTemplate // a template that is refused
	NoFlow      // a record that tells no flow
	NoCount     // a record that tells no number of packets
	// Of captured frames.
	Unreadable // damaged
	Foreign    // no UDP datagram, where flow export is looked for
	NotIP      // where packets are looked for
	Fragment   // a fragment of an IP packet
	LinkType   // captured on a link type that is not read here
	Reasons
)

// reasons are their names, for programs, and what they mean: so many of a noun
// that are so.
var reasons = [Reasons]struct{ name, noun, text string }{
	{"stranger", "datagram", "from an address that is not among the exporters"},
	{"version", "datagram", "of no flow protocol that is read"},
	{"short", "datagram", "shorter than the header of its version"},
	{"empty", "datagram", "without records"},
	{"cut", "datagram", "with less than the header promises (what is whole was read)"},
	{"damaged", "datagram", "damaged within (what is whole was read)"},
	{"no_template", "data set", "whose template did not come"},
	{"bad_template", "template", "refused"},
	{"no_flow", "record", "without the addresses of a flow"},
	{"no_count", "record", "without a number of packets"},
	{"unreadable", "frame", "damaged in its headers"},
	{"foreign", "frame", "not UDP"},
	{"not_ip", "frame", "not IP"},
	{"fragment", "frame", "with a fragment of an IP packet"},
	{"link_type", "frame", "of a link type that is not read"},
}

// Name returns the word that stands for the reason in the status.
func (r Reason) Name() string { return reasons[r].name }

// Noun returns what was dropped: a datagram, a part of one, or a frame.
func (r Reason) Noun() string { return reasons[r].noun }

// String returns what is said behind the noun.
func (r Reason) String() string { return reasons[r].text }

// reasonOf names a decoder's error.
func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, netflow.ErrShort), errors.Is(err, sflow.ErrShort):
		return Short
	case errors.Is(err, netflow.ErrEmpty):
		return Empty
	case errors.Is(err, netflow.ErrCount), errors.Is(err, sflow.ErrCount):
		return Cut
	case errors.Is(err, netflow.ErrSet), errors.Is(err, sflow.ErrSample), errors.Is(err, sflow.ErrAgent):
		return Damaged
	}
	return Version
}

// dropReasons are those of what the decoder drops of a datagram.
var dropReasons = [netflow.Drops]Reason{
	netflow.NoTemplate:  NoTemplate,
	netflow.BadTemplate: BadTemplate,
	netflow.NoFlow:      NoFlow,
	netflow.NoCount:     NoCount,
}
