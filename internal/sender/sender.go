// SPDX-License-Identifier: BSD-3-Clause

// Package sender decides who is notified and how often, and delivers. What it
// promises whatever comes in stands in the README, "What it never does": the
// policy (package policy) says to whom, the limits here how often, and in all
// no more than one byte is sent for a hundred that were observed.
package sender

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/tracer"
)

// MaxRate is the highest chance of a packet to be selected when tracers are
// sent. Above it, somebody who floods in another's name could make us flood
// that other with tracers.
const MaxRate = 1.0 / 1000

// observedPerSent bytes must have been observed for each byte that is sent.
const observedPerSent = 100

// plausible is a time before this program was written: a clock that shows less
// was never set, as a router's at boot.
var plausible = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// Protocol numbers of IANA.
const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// A Transport delivers the datagram form. It must not block for long.
type Transport interface {
	Send(to netip.Addr, datagram []byte) error
}

// A Signer makes the signed tracer from one whose flow, recipient, rate and
// counts, contact and evidence are set: it adds time, nonce and the rest.
type Signer interface {
	Sign(*tracer.Tracer) (tracer.Signed, error)
}

// Sealing is when a tracer is sealed, so that its recipient only can read it.
type Sealing uint8

const (
	SealNever   Sealing = iota
	SealPrefer          // if a key of the recipient is known
	SealRequire         // always; who has no key is not told
)

// A SealFor is the key of the recipients in a prefix, as the owner configured it.
type SealFor struct {
	Prefix netip.Prefix
	Key    tracer.SealKey
}

// Counters say what became of the notices: for each hit there is one for each
// end of the flow.
type Counters struct {
	Sent      uint64
	SentBytes uint64 // of all attempts, headers of IP, UDP and TCP included
	Sealed    uint64 // of those sent
	Posted    uint64 // taken by HTTPS or HTTP, which are counted in Sent unless a datagram was sent, too
	Unposted  uint64 // attempts of HTTPS or HTTP that came to nothing
	Failed    uint64 // the transport refused; SentBytes counts them
	Unset     uint64 // the clock was not set
	Crowded   uint64 // selected packets lost because too many addresses waited
	Refused   [policy.Reasons]uint64
	Receipts  uint64 // tracers that were answered
	Stopped   uint64 // notices for addresses that asked us to stop
	LeftAlone uint64 // notices for addresses that did not take one by HTTPS or HTTP within a day
	Unsealed  uint64 // notices that had to be sealed, and there was no key, or no room
	Impostors uint64 // receipts that another key signed than before
}

// A Sender belongs to the cold goroutine.
type Sender struct {
	Counters Counters

	policy    *policy.Policy
	signer    Signer
	transport Transport
	observed  func() uint64
	sent      func(*tracer.Tracer, *tracer.Signed)

	limits   limits
	pending  pending
	receipts *receipts // nil: none are taken
	web      *Web      // nil: only datagrams are sent
	seals    *seals    // nil: none are sealed
	start    time.Time
	buf      []byte
	swept    time.Duration // when it was looked for what nobody can be told any more
	need     uint64        // bytes of the tracer that the observed bytes did not yet pay for
}

// Options of a Sender; all are needed, but for Transport if there is UseWeb.
type Options struct {
	Policy    *policy.Policy
	Signer    Signer
	Transport Transport
	Observed  func() uint64                        // bytes of layer 3 observed so far
	Sent      func(*tracer.Tracer, *tracer.Signed) // is shown each tracer that was sent
}

// New returns a sender.
func New(o Options) *Sender {
	return &Sender{
		policy: o.Policy, signer: o.Signer, transport: o.Transport,
		observed: o.Observed, sent: o.Sent,
		limits: newLimits(), pending: newPending(), start: time.Now(),
	}
}

// About is what is known of a flow beyond its record.
type About struct {
	Contact  tracer.Contact
	Evidence tracer.Evidence
}

// Offer takes a hit of packets that were selected with a chance. The ends that may be
// told are noted; Drain tells them. It returns an error if the chance is above
// MaxRate, and tells nobody.
func (s *Sender) Offer(r *flow.Record, about *About, rate float64, selected uint64) error {
	if !(rate > 0 && rate <= MaxRate) {
		return fmt.Errorf("rate %v is above 1/1000, the most when tracers are sent", rate)
	}
	if time.Now().Before(plausible) {
		s.Counters.Unset += 2
		return nil
	}
	if posts && s.web.has(&r.Key, s.policy.Mine) {
		s.Counters.Refused[policy.Tracer] += 2
		return nil
	}
	now := time.Since(s.start)
	v := s.policy.Check(&r.Key)
	offer := func(why policy.Reason, to netip.Addr, e end, r *flow.Record) {
		if why != policy.Allowed {
			s.Counters.Refused[why]++
			return
		}
		if !s.receipts.wants(to, now) {
			s.Counters.Stopped++
			return
		}
		if posts {
			if lost := s.noWay(to, now); lost != nil {
				*lost++
				return
			}
		}
		s.Counters.Crowded += s.pending.add(to, e, r, about, rate, selected)
	}
	offer(v.Dst, r.DstAddr(), destination, r)
	if about.Evidence.Spoofed == "yes" && r.Protocol != protoICMP && r.Protocol != protoICMPv6 {
		// Whose address was used need not know where the packets went.
		told := *r
		told.Known &^= flow.HasPorts
		r = &told
	}
	offer(v.Src, r.SrcAddr(), source, r)
	return nil
}

// Waiting returns the number of addresses that a limit keeps waiting.
func (s *Sender) Waiting() int { return len(s.pending.notices) }

// Drain sends what the limits allow by now. It returns an error only if the
// signer does; the notice stays.
func (s *Sender) Drain() error {
	now := time.Since(s.start)
	may := func(to netip.Addr) bool {
		return s.limits.allow(to, now) && (!posts || s.byUDP(to, now) || s.byWeb(to) && s.web.ready(to, now))
	}
	if posts {
		s.sweep(now)
	}
	for len(s.pending.notices) > 0 && s.limits.allowAny(now) && s.within(s.need) {
		i := s.pending.first(may)
		if i < 0 {
			return nil
		}
		n := s.pending.notices[i]
		t := tracer.Tracer{Flow: n.record, To: n.to, Contact: n.about.Contact, Evidence: n.about.Evidence,
			Rate: n.rate, Selected: n.selected, Held: n.held}
		signed, err := s.signer.Sign(&t)
		if err != nil {
			return err
		}
		s.buf = signed.AppendDatagram(s.buf[:0])
		size, udp, sealed := uint64(0), true, false
		var posting *attempt
		if posts {
			udp = s.byUDP(n.to, now)
			posting = s.posting(&t, &signed, s.buf, udp, now)
			if sealed, err = s.seals.seal(&s.buf, n.to, now); err != nil { // the key is none to seal to, or there is no room
				s.Counters.Unsealed++
				s.pending.remove(i)
				continue
			}
		}
		if udp {
			size = uint64(len(s.buf) + headers(n.to))
		}
		if posts && posting != nil {
			if most := size + posting.cost(); s.within(most) {
				size = most
			} else if posting = nil; !udp {
				size = most
			}
		}
		if s.need = size; !s.within(size) {
			return nil // and nothing is signed in vain until that much is there
		}
		s.need = 0
		s.limits.spend(n.to, now)
		s.Counters.SentBytes += size // before the attempt: an error may hide a delivery
		if udp {
			if err := s.transport.Send(n.to, s.buf); err != nil {
				s.Counters.Failed++
			} else {
				s.delivered(&t, &signed, sealed)
				s.receipts.sent(t.Nonce, signed.Key, n.to, now)
			}
		}
		s.pending.remove(i)
		if posts {
			s.post(posting, now)
		}
	}
	return nil
}

// delivered counts a tracer that was sent, and shows it.
func (s *Sender) delivered(t *tracer.Tracer, signed *tracer.Signed, sealed bool) {
	s.Counters.Sent++
	if sealed {
		s.Counters.Sealed++
	}
	s.sent(t, signed)
}

// byUDP tells whether an address may get a datagram.
func (s *Sender) byUDP(to netip.Addr, now time.Duration) bool {
	return s.transport != nil && (!s.seals.require() || s.seals.has(to, now))
}

// noWay returns the counter of what nobody can be told in any way; nil if there is one.
func (s *Sender) noWay(to netip.Addr, now time.Duration) *uint64 {
	switch {
	case s.byUDP(to, now):
		return nil
	case s.transport == nil && !s.byWeb(to):
		return &s.Counters.Refused[policy.Unreachable]
	case !s.byWeb(to) || !s.web.wants(to, now):
		if s.transport != nil {
			return &s.Counters.Unsealed
		}
		return &s.Counters.LeftAlone
	case s.seals.require() && !s.seals.has(to, now) && !s.web.tells(to, now):
		return &s.Counters.Unsealed
	}
	return nil
}

// within tells whether size more bytes keep to the share of what was observed.
func (s *Sender) within(size uint64) bool {
	return s.Counters.SentBytes+size <= s.observed()/observedPerSent
}

// headers returns the bytes of IP and UDP before the datagram.
func headers(to netip.Addr) int {
	if to.Is4() {
		return 20 + 8
	}
	return 40 + 8
}
