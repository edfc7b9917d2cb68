// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

const (
	// maxAsked tracers are remembered, for receipts of them: more than totalRate
	// lets through within answered.
	maxAsked = 256
	answered = 20 * time.Second
	// maxStopped addresses are left alone at their own wish, the last that had one:
	// past that, those that asked first are told again, and may ask again.
	maxStopped = 1024
	stopped    = 24 * time.Hour
	// maxWanting addresses are told more often, at their own wish, for some minutes.
	maxWanting = 16
	wanting    = 5 * time.Minute
	// maxHeard addresses are remembered that sent receipts: who did within this time is
	// not asked by HTTP.
	maxHeard = 512
	reads    = 24 * time.Hour
)

// receiptRate bounds what verifying receipts costs a slow router.
var receiptRate = rate{500 * time.Millisecond, 10}

// receipts are what is remembered of tracers that were sent, and who asked us to
// stop. A receipt counts only from the address that the tracer went to, with its
// nonce, once: whoever did not get the tracer cannot make one.
type receipts struct {
	asked  map[[8]byte]asked // by nonce
	order  [maxAsked][8]byte // of asked, a ring
	next   int
	stops  map[netip.Addr]time.Duration // until when
	more   map[netip.Addr]time.Duration // until when
	news   bool                         // of more
	heard  *lru.Table[netip.Addr]       // those who sent a receipt
	at     []time.Duration              // when, by slot
	bucket bucket
}

type asked struct {
	to   netip.Addr
	key  tracer.PublicKey // that signed it
	at   time.Duration
	slot int
}

func newReceipts() *receipts {
	return &receipts{asked: map[[8]byte]asked{}, stops: map[netip.Addr]time.Duration{}, more: map[netip.Addr]time.Duration{},
		heard: lru.New[netip.Addr](maxHeard), at: make([]time.Duration, maxHeard)}
}

// TakeReceipts has what is sent be remembered, so that Answer can be used.
func (s *Sender) TakeReceipts() { s.receipts = newReceipts() }

// Answer takes what came back to the transport from an address.
func (s *Sender) Answer(b []byte, from netip.Addr) {
	now := time.Since(s.start)
	r, ok := s.receipts.take(b, from, now)
	if !ok {
		return
	}
	s.Counters.Receipts++
	if s.seals != nil && !s.seals.receipt(from, r, now) {
		s.Counters.Impostors++
	}
	verb := r.Verb
	if verb != tracer.Stop {
		return
	}
	for i := len(s.pending.notices) - 1; i >= 0; i-- {
		if s.pending.notices[i].to == from {
			s.pending.remove(i)
			s.Counters.Stopped++
		}
	}
}

// sent remembers a tracer.
func (r *receipts) sent(nonce [8]byte, key tracer.PublicKey, to netip.Addr, now time.Duration) {
	if r == nil {
		return
	}
	if old, ok := r.asked[r.order[r.next]]; ok && old.slot == r.next {
		delete(r.asked, r.order[r.next])
	}
	r.order[r.next], r.asked[nonce] = nonce, asked{to, key, now, r.next}
	r.next = (r.next + 1) % maxAsked
}

// take takes what came to the sockets that tracers leave from.
func (r *receipts) take(b []byte, from netip.Addr, now time.Duration) (*tracer.Receipt, bool) {
	x, err := tracer.ParseReceipt(b)
	if err != nil || x.To != from {
		return nil, false
	}
	a, ok := r.asked[x.Nonce]
	if !ok || a.to != from || a.key != x.Sender || now-a.at > answered || !r.bucket.allows(now, receiptRate) {
		return nil, false
	}
	r.bucket = r.bucket.take(now, receiptRate)
	if !x.Valid() {
		return nil, false
	}
	delete(r.asked, x.Nonce)
	slot, _ := r.heard.Put(from)
	r.at[slot] = now
	switch x.Verb {
	case tracer.Stop:
		r.stop(from, now)
	case tracer.More:
		r.want(from, now)
	}
	return &x, true
}

// want grants more tracers, one address of a network at a time: those who asked first are
// served first.
func (r *receipts) want(a netip.Addr, now time.Duration) {
	for b := range r.more {
		if a != b && prefixOf(a) == prefixOf(b) {
			return
		}
	}
	_, known := r.more[a]
	if known || len(r.more) < maxWanting {
		r.more[a] = now + wanting
		r.news = r.news || !known
	}
}

// reads tells whether an address reads datagrams, as a receipt within a day shows.
func (r *receipts) reads(a netip.Addr, now time.Duration) bool {
	if r == nil {
		return false
	}
	slot, ok := r.heard.Find(a)
	return ok && now-r.at[slot] < reads
}

// Wanting returns the addresses that asked for more tracers and may have them, and
// whether that has changed since the last call.
func (s *Sender) Wanting() (all []netip.Addr, changed bool) {
	r := s.receipts
	if r == nil {
		return nil, false
	}
	now := time.Since(s.start)
	for a, until := range r.more {
		if until <= now {
			delete(r.more, a)
			r.news = true
			continue
		}
		all = append(all, a)
	}
	changed, r.news = r.news, false
	return all, changed
}

func (r *receipts) stop(a netip.Addr, now time.Duration) {
	if _, ok := r.more[a]; ok {
		delete(r.more, a)
		r.news = true
	}
	if len(r.stops) >= maxStopped {
		first, until := netip.Addr{}, time.Duration(0)
		for a, u := range r.stops {
			if !first.IsValid() || u < until {
				first, until = a, u
			}
		}
		delete(r.stops, first)
	}
	r.stops[a] = now + stopped
}

// wants tells whether an address did not ask us to stop within a day.
func (r *receipts) wants(a netip.Addr, now time.Duration) bool {
	if r == nil {
		return true
	}
	until, ok := r.stops[a]
	if ok && until <= now {
		delete(r.stops, a)
		ok = false
	}
	return !ok
}
