// SPDX-License-Identifier: BSD-3-Clause

package receiver

import "sync/atomic"

// A Reason why a tracer was refused, or Taken.
type Reason uint8

const (
	Taken        Reason = iota
	Form                // no tracer in any form, or too large
	NetworkRate         // too many from one network, of new keys
	KeyRate             // too many of one key
	NewBudget           // too many of new keys in all
	SeenBudget          // too many in the lane seen
	KnownBudget         // too many in the lane known
	Busy                // verifying does not keep up
	NotMine             // for somebody else, or for nobody
	Future              // made more than 5 minutes from now
	Old                 // made more than a day ago
	Replay              // was here before
	Signature           // the signature does not fit
	Message             // signed, but no message of a tracer
	NotEnd              // whom it is for is no end of its flow
	Sealed              // sealed, and there is no key to open it
	SealedBudget        // too many sealed ones
	Unopened            // sealed for another key, or damaged
	Reasons             // how many there are
)

var reasonTexts = [Reasons]string{"taken", "not of the form of a tracer", "too many of one network with new keys", "too many of one key",
	"too many of new keys", "too many of keys without standing", "too many of known keys", "verifying did not keep up", "for another recipient",
	"made in the future", "made more than a day ago", "was here before", "the signature does not fit", "not the message of a tracer",
	"the recipient is no end of the flow", "sealed, and there is no key to open it", "too many sealed ones", "sealed for another key, or damaged"}

var reasonNames = [Reasons]string{"taken", "form", "network_rate", "key_rate", "new_budget", "seen_budget", "known_budget", "busy", "not_mine",
	"future", "old", "replay", "signature", "message", "not_end", "sealed", "sealed_budget", "unopened"}

// String returns a few lower-case words.
func (r Reason) String() string { return reasonTexts[r] }

// Name returns the word that stands for the reason in what programs read.
func (r Reason) Name() string { return reasonNames[r] }

// Error makes a Reason an error, for those who deliver one tracer at a time.
func (r Reason) Error() string { return reasonTexts[r] }

// Counters are safe for concurrent use.
type Counters struct {
	Offered  atomic.Uint64
	Results  [Reasons]atomic.Uint64 // Taken and, by reason, refused
	Stale    atomic.Uint64          // of those taken
	Verified atomic.Uint64          // signatures that were looked at
	Overrun  atomic.Uint64          // datagrams that the system dropped, as reading did not keep up
	Evicted  atomic.Uint64          // keys that made room for others in the ledger
}
