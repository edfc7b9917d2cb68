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
	maxPeers = 512 // recipients that are remembered, the last ones
	// pinned is how long a recipient's key holds that nobody confirms.
	pinned = 30 * 24 * time.Hour
	// reads is how long who sent a receipt for a datagram is not asked by HTTP.
	reads = 24 * time.Hour
)

// A peer is a recipient as far as it told: by receipts, or by its document.
type peer struct {
	signer tracer.PublicKey // of its receipts; zero: it sent none yet
	seal   tracer.SealKey   // zero: none
	at     time.Duration    // when that was last confirmed
	heard  bool             // by a receipt
}

// seals know to which key tracers are sealed.
type seals struct {
	mode  Sealing
	given []SealFor // the longest prefixes first
	table *lru.Table[netip.Addr]
	peers []peer // by slot
}

func newSeals(mode Sealing, given []SealFor) *seals {
	return &seals{mode: mode, given: given, table: lru.New[netip.Addr](maxPeers), peers: make([]peer, maxPeers)}
}

func (s *seals) peer(a netip.Addr, now time.Duration) *peer {
	if slot, ok := s.table.Find(a); ok && now-s.peers[slot].at < pinned {
		return &s.peers[slot]
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

// reads tells whether an address reads datagrams, as receipts show.
func (s *seals) reads(a netip.Addr, now time.Duration) bool {
	if s == nil {
		return false
	}
	p := s.peer(a, now)
	return p != nil && p.heard && now-p.at < reads
}

// receipt takes what a valid receipt of an address says of keys. It returns false if
// another one than before signed it while there is a key to keep: then it says nothing.
func (s *seals) receipt(a netip.Addr, r *tracer.Receipt, now time.Duration) bool {
	p := s.peer(a, now)
	if p == nil {
		p = s.add(a)
	} else if p.seal != (tracer.SealKey{}) && p.signer != r.Key && (p.signer != tracer.PublicKey{} || p.seal != r.Seal) {
		return false
	}
	*p = peer{signer: r.Key, seal: r.Seal, at: now, heard: true}
	return true
}

// document takes the key that a recipient's document names, if none is known.
func (s *seals) document(a netip.Addr, key tracer.SealKey, now time.Duration) {
	p := s.peer(a, now)
	if p == nil {
		p = s.add(a)
	} else if p.seal != (tracer.SealKey{}) {
		return
	}
	p.seal, p.at = key, now
}

func (s *seals) add(a netip.Addr) *peer {
	slot, _ := s.table.Put(a)
	s.peers[slot] = peer{}
	return &s.peers[slot]
}

// has tells whether there is a key of an address.
func (s *seals) has(a netip.Addr, now time.Duration) bool {
	return s.key(a, now) != tracer.SealKey{}
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
