// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

const (
	maxPeers = 512 // recipients that are remembered, the last ones
	// pinned is how long a recipient's key holds that nobody confirms.
	pinned = 30 * 24 * time.Hour
	// confirmed is how long a key needs no other confirmation.
	confirmed = 24 * time.Hour
)

// A peer is a recipient as far as it told: by receipts, or by its document.
type peer struct {
	addr   netip.Addr
	signer tracer.PublicKey // of its receipts; zero: it sent none yet
	seal   tracer.SealKey   // zero: none
	at     time.Duration    // when that was last confirmed
}

// seals know to which key tracers are sealed.
type seals struct {
	mode    Sealing
	given   []SealFor // the longest prefixes first
	changed bool      // since it was last asked for, a key did
	table   *lru.Table[netip.Addr]
	peers   []peer // by slot
	// forgotten keys are those that nobody withdrew: they were too old, no good, or made
	// room for others. Who had one is told openly again, unless all must be sealed.
	forgotten uint64
}

func newSeals(mode Sealing, given []SealFor) *seals {
	return &seals{mode: mode, given: given, table: lru.New[netip.Addr](maxPeers), peers: make([]peer, maxPeers)}
}

func (s *seals) peer(a netip.Addr, now time.Duration) *peer {
	slot, ok := s.table.Find(a)
	if !ok {
		return nil
	}
	p := &s.peers[slot]
	if now-p.at < pinned {
		return p
	}
	if p.seal != (tracer.SealKey{}) {
		*p = peer{addr: a, at: p.at}
		s.forgotten++
		s.changed = true
	}
	return nil
}

// key returns the key of an address; zero: tracers to it are not sealed, or cannot be.
func (s *seals) key(a netip.Addr, now time.Duration) (key tracer.SealKey) {
	if s == nil || s.mode == SealNever {
		return key
	}
	for i := range s.given {
		if s.given[i].Prefix.Contains(a) {
			return s.given[i].Key
		}
	}
	if p := s.peer(a, now); p != nil {
		key = p.seal
	}
	return key
}

// sealing is the mode.
func (s *seals) sealing() Sealing {
	if s == nil {
		return SealNever
	}
	return s.mode
}

// asks tells whether an address is to be asked for its document: if no key is known, or
// one that nobody confirmed for a day.
func (s *seals) asks(a netip.Addr, now time.Duration) bool {
	if s == nil || s.mode == SealNever {
		return false
	}
	for i := range s.given {
		if s.given[i].Prefix.Contains(a) {
			return false
		}
	}
	p := s.peer(a, now)
	return p == nil || now-p.at > confirmed
}

// doubt forgets a key that a document told, and that is no good any more: it is asked
// for again. What a receipt told holds.
func (s *seals) doubt(a netip.Addr) {
	if s == nil {
		return
	}
	if slot, ok := s.table.Find(a); ok && s.peers[slot].signer == (tracer.PublicKey{}) {
		s.peers[slot].at -= pinned
	}
}

// receipt takes what a valid receipt of an address says of keys. It returns false if
// another one than before signed it while there is a key to keep: then it says nothing.
func (s *seals) receipt(a netip.Addr, r *tracer.Receipt, now time.Duration) bool {
	p := s.peer(a, now)
	switch {
	case p == nil && r.Seal == tracer.SealKey{}:
		return true // who has no key takes nobody's place
	case p == nil:
		p = s.add(a)
	case p.signer != r.Key && (p.signer != tracer.PublicKey{} || p.seal != r.Seal):
		return false
	}
	s.changed = s.changed || p.seal != r.Seal || p.signer != r.Key || now-p.at > confirmed
	*p = peer{addr: a, signer: r.Key, seal: r.Seal, at: now}
	if r.Seal == (tracer.SealKey{}) {
		p.at = now - pinned // which is none
	}
	return true
}

// document takes the key that a recipient's document names. It does not change what a
// receipt told.
func (s *seals) document(a netip.Addr, key tracer.SealKey, now time.Duration) {
	p := s.peer(a, now)
	if p == nil {
		p = s.add(a)
	} else if p.seal != key && p.signer != (tracer.PublicKey{}) {
		return
	}
	p.seal, p.at, s.changed = key, now, true
}

// A Pin is the key of a recipient that told it. Signer is the key of its receipts, zero
// if it was its document that told.
type Pin struct {
	Addr   netip.Addr
	Seal   tracer.SealKey
	Signer tracer.PublicKey
	Age    time.Duration // since it was last confirmed
}

// maxPins are kept beyond the end of the program: 5 kB of flash.
const maxPins = 32

// Pins returns those that were confirmed last, the newest first, and whether any of
// them changed since the last call.
func (s *Sender) Pins() (pins []Pin, changed bool) {
	now := time.Since(s.start)
	for slot := range s.seals.table.FromOldest() {
		if p := &s.seals.peers[slot]; p.seal != (tracer.SealKey{}) && now-p.at < pinned {
			pins = append(pins, Pin{p.addr, p.seal, p.signer, now - p.at})
		}
	}
	slices.SortFunc(pins, func(a, b Pin) int { return cmp.Compare(a.Age, b.Age) })
	changed, s.seals.changed = s.seals.changed, false
	return pins[:min(len(pins), maxPins)], changed
}

// Pinned returns how many keys there are that recipients told, and how many were forgotten
// that nobody withdrew.
func (s *Sender) Pinned() (n int, forgotten uint64) {
	if s.seals == nil {
		return 0, 0
	}
	for slot := range s.seals.table.FromOldest() {
		if s.seals.peers[slot].seal != (tracer.SealKey{}) {
			n++
		}
	}
	return n, s.seals.forgotten
}

// Pin has keys known that were before.
func (s *Sender) Pin(pins []Pin) {
	now := time.Since(s.start)
	for _, p := range slices.Backward(pins) {
		*s.seals.add(p.Addr) = peer{addr: p.Addr, signer: p.Signer, seal: p.Seal, at: now - p.Age}
	}
}

func (s *seals) add(a netip.Addr) *peer {
	slot, _ := s.table.Put(a)
	if p := &s.peers[slot]; p.addr != a && p.seal != (tracer.SealKey{}) {
		s.forgotten++
	}
	s.peers[slot] = peer{addr: a}
	return &s.peers[slot]
}

// has tells whether there is a key of an address.
func (s *seals) has(a netip.Addr, now time.Duration) bool {
	return s.key(a, now) != tracer.SealKey{}
}

// sweep drops what waits for those to whom there is no way any more, as when a key was
// withdrawn, now and then.
func (s *Sender) sweep(now time.Duration) {
	if now-s.swept < 10*time.Second {
		return
	}
	s.swept = now
	for i := len(s.pending.notices) - 1; i >= 0; i-- {
		if lost := s.noWay(s.pending.notices[i].to, now); lost != nil {
			s.pending.remove(i)
			*lost++
		}
	}
}

// require tells whether nothing is sent that is not sealed.
func (s *seals) require() bool { return s != nil && s.mode == SealRequire }

// seal puts the sealed form in the place of a datagram, if there is a key.
func (s *seals) seal(datagram *[]byte, to netip.Addr, now time.Duration) (bool, error) {
	key := s.key(to, now)
	if key == (tracer.SealKey{}) {
		return false, nil
	}
	sealed, err := tracer.Seal(nil, key, *datagram)
	if err != nil {
		return false, err
	}
	*datagram = append((*datagram)[:0], sealed...)
	return true, nil
}
