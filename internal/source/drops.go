// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"errors"

	"github.com/overflowd/overflowd/internal/netflow"
)

// Reason why something that came in, or a part of it, gave no record.
type Reason uint8

// Reasons, of datagrams first.
const (
	Stranger   Reason = iota // the sender is not among the exporters
	Version                  // not a flow protocol that is read here
	Short                    // shorter than its header
	Empty                    // promises no records
	Cut                      // promises more records than it holds
	Unreadable               // a captured frame that is damaged
	Foreign                  // a captured frame that is no UDP datagram
	Fragment                 // a captured fragment of an IP packet
	LinkType                 // captured on a link type that is not read here
	Reasons
)

var reasonTexts = [Reasons]string{
	"from an address that is not among the exporters",
	"not NetFlow v1, v5 or v7",
	"shorter than the header of its version",
	"without records",
	"with fewer whole records than the header promises (the whole ones were read)",
	"damaged below UDP",
	"not UDP",
	"a fragment of an IP packet",
	"of a link type that is not read",
}

func (r Reason) String() string { return reasonTexts[r] }

// reasonOf names a decoder's error.
func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, netflow.ErrShort):
		return Short
	case errors.Is(err, netflow.ErrEmpty):
		return Empty
	case errors.Is(err, netflow.ErrCount):
		return Cut
	}
	return Version
}
