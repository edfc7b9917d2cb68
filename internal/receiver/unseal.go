// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"context"
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

// unsealing opens sealed tracers. To open one costs about as much as a signature, and
// before it nobody knows whose it is: so it is rationed, too, in two lanes. One is of
// networks (/24, /48) from which a sealed tracer came that proved to be of standing;
// the other one is of all others, each network with its own bucket. What is opened goes
// on as any datagram.
type unsealing struct {
	open    func(sealed []byte) ([]byte, error)
	queues  [2]chan *parcel // of networks with standing, of others; full: refused as Busy
	free    chan *parcel    // room for all there are
	homes   *lru.Table[netip.Prefix]
	others  networks
	buckets [2]bucket // these are guarded by Receiver.mu, as are the tables
	rates   [2]rate
}

// A parcel is a sealed tracer that waits to be opened.
type parcel struct {
	from    netip.AddrPort
	hops    int
	arrived time.Time
	n       int
	buf     [tracer.MaxDatagram]byte
}

func newUnsealing(o *Options) *unsealing {
	if o.Unseal == nil {
		return nil
	}
	u := &unsealing{open: o.Unseal, homes: lru.New[netip.Prefix](max(o.Networks, 1)), others: newNetworks(max(o.Networks, 1))}
	all := 2
	for i, l := range []lane{known, unheard} {
		u.rates[i] = perSecond(max(o.Rates[l], 0.01), max(int(o.Rates[l]/4), 1))
		u.queues[i] = make(chan *parcel, max(o.Queue/(4<<(2*i)), 1))
		all += cap(u.queues[i])
	}
	u.free = make(chan *parcel, all)
	for range all {
		u.free <- new(parcel)
	}
	return u
}

// allows takes a token, and tells which lane it is of.
func (u *unsealing) allows(r *Receiver, from netip.Addr) (lane int, why Reason) {
	network, now := networkOf(from), time.Since(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := u.homes.Find(network); !ok {
		lane = 1
		if from.IsValid() && !u.others.allows(network, now) {
			return lane, NetworkRate
		}
	}
	if !u.buckets[lane].allows(now, u.rates[lane]) {
		return lane, SealedBudget
	}
	u.buckets[lane].take(now, u.rates[lane])
	if lane == 1 && from.IsValid() {
		u.others.take(network, now)
	}
	return lane, Taken
}

// offer has a sealed tracer wait.
func (u *unsealing) offer(r *Receiver, b []byte, from netip.AddrPort, hops int, now time.Time) Reason {
	if len(b) > tracer.MaxDatagram {
		return Form
	}
	var p *parcel
	select {
	case p = <-u.free:
	default:
		return Busy
	}
	lane, why := u.allows(r, from.Addr())
	if why != Taken {
		u.free <- p
		return why
	}
	p.from, p.hops, p.arrived, p.n = from, hops, now, copy(p.buf[:], b)
	select {
	case u.queues[lane] <- p:
		return Taken
	default:
		u.free <- p
		return Busy
	}
}

// run opens what waits until ctx is done.
func (u *unsealing) run(ctx context.Context, r *Receiver) {
	for {
		var p *parcel
		select {
		case p = <-u.queues[0]:
		default:
			select {
			case p = <-u.queues[0]:
			case p = <-u.queues[1]:
			case <-ctx.Done():
				return
			}
		}
		inner, err := u.open(p.buf[:p.n])
		why := unopened(err)
		if err == nil {
			why = r.offerOpen(inner, p.from, p.hops, p.arrived, true)
		}
		if why != Taken {
			r.count(why)
		}
		u.free <- p
	}
}

// Unseal opens a sealed tracer for who waits, as Submit takes one: a Reason if it is
// refused.
func (r *Receiver) Unseal(sealed []byte, from netip.Addr) ([]byte, error) {
	if r.unsealing == nil {
		return nil, Sealed
	}
	if len(sealed) > tracer.MaxDatagram {
		return nil, Form
	}
	if _, why := r.unsealing.allows(r, from); why != Taken {
		return nil, why
	}
	inner, err := r.unsealing.open(sealed)
	if err != nil {
		return nil, unopened(err)
	}
	return inner, nil
}

// unopened is why a tracer was not opened: the Reason that Options.Unseal gave.
func unopened(err error) Reason {
	if why, ok := err.(Reason); ok {
		return why
	}
	return Unopened
}

// home gives the network standing of which a sealed tracer came that counts.
func (u *unsealing) home(x *Received) {
	if u != nil && x.From.IsValid() && !x.Stale && x.Level > NewKey {
		u.homes.Put(networkOf(x.From))
	}
}
