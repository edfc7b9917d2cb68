// SPDX-License-Identifier: BSD-3-Clause

package evidence

// Reasons why a flow is suspected: a set.
type Reasons uint16

const (
	// Spoofed: the source cannot be where the packet came from.
	Spoofed Reasons = 1 << iota
	// Special: the source is of no network on the Internet.
	Special
	// SYN: one of many openings of one port that nobody completes.
	SYN
	// Scan: one of many unanswered openings, by one source, of one port of many
	// hosts or of many ports of one.
	Scan
	// Reflection: large answers of a service that amplifies, which nobody asked for.
	Reflection
	// Backscatter: answers or errors about packets that were never sent.
	Backscatter
	// Rate: one of the flows to an address that gets more packets than the
	// threshold.
	Rate
	// Listed: an end is in the owner's list.
	Listed
	endOfReasons

	// AllReasons is the set of all.
	AllReasons = endOfReasons - 1

	// Wanted is no reason to suspect a flow, but one to select its packets with the
	// higher chance: its destination asked for more tracers.
	Wanted Reasons = 1 << 11
)

// reasons are their names in the tracer's "suspicion" and in the status.
var reasons = [...]string{"spoofed", "special", "syn", "scan", "reflection", "backscatter", "rate", "listed"}

// NumReasons is how many there are.
const NumReasons = len(reasons)

// ReasonName returns the name of the i-th reason, the bit i of Reasons.
func ReasonName(i int) string { return reasons[i] }

// Names returns those of the set, in their order.
func (r Reasons) Names() (names []string) {
	for i, name := range reasons {
		if r>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}
