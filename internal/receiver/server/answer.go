// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

// answerer makes receipts. Whoever has a key may send tracers in another's name, so
// that this one gets the receipts: they are smaller than what was sent for them, at
// most answersEach a second go to one network (/24, /48), and answersAll to all.
// It is used by the receiver's sink only.
type answerer struct {
	key                ed25519.PrivateKey
	seal               func() tracer.SealKey // that senders are told
	stop, more         []netip.Prefix
	networks           *lru.Table[netip.Prefix]
	tokens             []tokens
	all                tokens
	sent, held, failed atomic.Uint64
}

const (
	answersEach     = 4
	answersAll      = 100
	answersNetworks = 4096
)

// tokens are those of a bucket that is filled at a rate and holds as many as come
// in a second.
type tokens struct {
	n  float64
	at time.Time
}

func (t *tokens) fill(now time.Time, rate float64) {
	if t.at.IsZero() {
		t.n = rate
	} else {
		t.n = min(rate, t.n+rate*max(now.Sub(t.at).Seconds(), 0))
	}
	t.at = now
}

func newAnswerer(dir string, stop, more []netip.Prefix, seal func() tracer.SealKey) (*answerer, error) {
	id, err := identity.Open(dir).LoadOrCreate()
	if err != nil {
		return nil, fmt.Errorf("the key for receipts: %w", err)
	}
	return &answerer{key: id.Private, seal: seal, stop: stop, more: more, networks: lru.New[netip.Prefix](answersNetworks), tokens: make([]tokens, answersNetworks)}, nil
}

// allows takes a token for an answer to an address.
func (a *answerer) allows(to netip.Addr, now time.Time) bool {
	bits := 24
	if to.Is6() {
		bits = 48
	}
	p, _ := to.Prefix(bits)
	slot, outcome := a.networks.Put(p)
	if outcome != lru.Found {
		a.tokens[slot] = tokens{}
	}
	each := &a.tokens[slot]
	each.fill(now, answersEach)
	a.all.fill(now, answersAll)
	if each.n < 1 || a.all.n < 1 {
		return false
	}
	each.n--
	a.all.n--
	return true
}

// receipt returns the answer to a tracer, nil if there is none.
func (a *answerer) receipt(x *receiver.Received, now time.Time) []byte {
	if x.Port == 0 || x.Stale {
		return nil
	}
	if !a.allows(x.From, now) {
		a.held.Add(1)
		return nil
	}
	r := tracer.Receipt{Verb: tracer.Received, Time: now.UnixMilli(), Nonce: x.Nonce, Sender: x.Signed.Key, To: x.To, Seal: a.seal()}
	switch {
	case Mine(a.stop)(x.To):
		r.Verb = tracer.Stop
	case Mine(a.more)(x.To):
		r.Verb = tracer.More
	}
	return tracer.AppendReceipt(nil, a.key, &r)
}

// answer answers a tracer that came as a datagram.
func (s *Server) answer(x *receiver.Received) {
	if s.answerer == nil {
		return
	}
	b := s.answerer.receipt(x, time.Now())
	if b == nil {
		return
	}
	for _, socket := range s.sockets {
		if socket.Addr().Addr().Is4() != x.From.Is4() || x.To.Is4() != x.From.Is4() {
			continue
		}
		if err := socket.Reply(b, x.To, netip.AddrPortFrom(x.From, x.Port)); err == nil {
			s.answerer.sent.Add(1)
			return
		}
	}
	s.answerer.failed.Add(1)
}
