// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

// unsealing opens sealed tracers. To open one costs more than a signature, and before it
// nobody knows whose it is: so it is rationed, too, in two lanes. One is of networks
// (/24, /48) from which a sealed tracer came that proved to be of standing, of which each
// has an eighth of the lane at the most; the other one is of all others, each network
// with its own bucket. What is opened goes on as any datagram.
type unsealing struct {
	open    func(sealed []byte) ([]byte, error)
	queues  [2]chan *parcel // of networks with standing, of others; full: refused as Busy
	free    chan *parcel    // room for all there are
	homes   *lru.Table[netip.Prefix]
	each    []bucket // of the homes, by slot
	home    rate     // of one of them
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
	u := &unsealing{open: o.Unseal, homes: lru.New[netip.Prefix](max(o.Networks, 1)),
		each: make([]bucket, max(o.Networks, 1)), home: homeRate(o.OpenRates[0]), others: newNetworks(max(o.Networks, 1))}
	all := 2
	for i, n := range o.OpenRates {
		u.rates[i] = perSecond(max(n, 0.01), max(int(n/4), 4))
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
	slot, ok := u.homes.Find(network)
	if ok {
		if !u.each[slot].allows(now, u.home) {
			return lane, NetworkRate
		}
	} else {
		lane = 1
		if from.IsValid() && !u.others.allows(network, now) {
			return lane, NetworkRate
		}
	}
	if !u.buckets[lane].allows(now, u.rates[lane]) {
		return lane, SealedBudget
	}
	u.buckets[lane].take(now, u.rates[lane])
	if lane == 0 {
		u.each[slot].take(now, u.home)
	} else if from.IsValid() {
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

// SubmitSealed is as Submit, of a sealed tracer.
func (r *Receiver) SubmitSealed(sealed []byte, from netip.Addr, now time.Time) (*Received, error) {
	u := r.unsealing
	refuse := func(why Reason) (*Received, error) {
		r.Refuse(why)
		return nil, why
	}
	if u == nil {
		return refuse(Sealed)
	}
	if len(sealed) > tracer.MaxDatagram {
		return refuse(Form)
	}
	if _, why := u.allows(r, from); why != Taken {
		return refuse(why)
	}
	inner, err := u.open(sealed)
	if err != nil {
		return refuse(unopened(err))
	}
	signed, err := tracer.ParseDatagram(inner)
	if err != nil {
		return refuse(Form)
	}
	x, err := r.Submit(signed, from, -1, now)
	if err == nil {
		u.note(r, x)
	}
	return x, err
}

// unopened is why a tracer was not opened: the Reason that Options.Unseal gave.
func unopened(err error) Reason {
	if why, ok := err.(Reason); ok {
		return why
	}
	return Unopened
}

// note gives the network standing of which a sealed tracer came that counts.
func (u *unsealing) note(r *Receiver, x *Received) {
	if !x.From.IsValid() || x.Stale || x.Level <= NewKey {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slot, outcome := u.homes.Put(networkOf(x.From)); outcome != lru.Found {
		u.each[slot] = 0
	}
}

// OpenCost measures what it takes to find that one sealed tracer cannot be opened, by any
// of so many keys.
func OpenCost(keys int) time.Duration {
	var all tracer.Openers
	for i := range max(keys, 1) {
		if key, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{byte(i + 1)}, 32)); err == nil {
			all = append(all, key)
		}
	}
	sealed := append([]byte("OVERFLWS"), bytes.Repeat([]byte{9}, 600)...)
	least := time.Hour
	for range 5 {
		start := time.Now()
		all.Open(sealed)
		least = min(least, time.Since(start))
	}
	return max(least, time.Microsecond)
}

// OpenRates returns those of sealed tracers, of networks with standing and of others, of
// a share of one CPU and what opening one costs.
func OpenRates(share float64, cost time.Duration) [2]float64 {
	all := share / cost.Seconds()
	return [2]float64{all * 3 / 4, all / 4}
}
