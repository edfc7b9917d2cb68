// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"context"
	"crypto/ed25519"
	"net/netip"
	"sync"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// A Received tracer was verified, is for us, and counts once.
type Received struct {
	*tracer.Message
	Signed  tracer.Signed // its Message is owned
	From    netip.Addr    // who delivered it; not valid if nobody knows
	Hops    int           // that the delivery took, -1 if nobody knows
	Port    uint16        // from where a datagram came; 0: it was none
	Arrived time.Time
	// Stale: it was made more than 5 minutes before it came, or so long ago that
	// nobody knows any more whether it was here before. It does not count.
	Stale bool
	Level Level // of its key, this tracer included
}

// A lane is a ration of signatures to verify. See the package's comment.
type lane uint8

const (
	known lane = iota
	seen
	unheard
	lanes
)

// laneReasons say that a lane's ration is spent.
var laneReasons = [lanes]Reason{KnownBudget, SeenBudget, NewBudget}

// Options of a Receiver.
type Options struct {
	// Mine tells whether an address is one of ours. It must be safe for concurrent
	// use.
	Mine   func(netip.Addr) bool
	Ledger *Ledger
	// Rates of the three lanes, known, seen and new, in signatures a second. Rates
	// makes them of a share of the CPU.
	Rates    [3]float64
	Queue    int // datagrams of known keys that may wait for their verification; of others a quarter
	Replays  int // tracers that are remembered
	Networks int // whose rates are watched
	Workers  int // goroutines that verify
	// Since: what was made before is stale, as nobody knows whether it was here
	// before. Who knows all that came calls Remember with it.
	Since time.Time
	// Unseal opens the sealed form, for concurrent use; nil: nobody does. Its error may
	// be a Reason.
	Unseal func(sealed []byte) ([]byte, error)
	// OpenRates is how many may be opened a second, of networks with standing and of
	// others.
	OpenRates [2]float64
	// Sink gets what was taken, from one goroutine at a time.
	Sink func(*Received)
}

// MaxAge is how old a tracer may be.
const MaxAge = 24 * time.Hour

// A Receiver is safe for concurrent use.
type Receiver struct {
	Counters Counters

	mine    func(netip.Addr) bool
	sink    func(*Received)
	sinking sync.Mutex
	start   time.Time
	workers int
	rates   [lanes]rate
	home    rate                   // of one known key
	queues  [lanes]chan *candidate // see Options.Queue; never closed; full: refused as Busy
	free    chan *candidate        // room for all there are; never closed

	unsealing *unsealing // nil: sealed tracers are refused

	mu       sync.Mutex // guards what follows, and the ledger's entries
	ledger   *Ledger
	buckets  [lanes]bucket
	networks networks
	replays  replayFilter
}

// A candidate passed all that is cheap.
type candidate struct {
	offer
	buf [tracer.MaxDatagram]byte
}

// An offer is a tracer on its way.
type offer struct {
	signed  tracer.Signed
	from    netip.Addr
	port    uint16
	hops    int
	arrived time.Time
	glance  tracer.Glance
	lane    lane
	stale   bool
	sealed  bool // was
}

// New returns a receiver.
func New(o Options) *Receiver {
	r := &Receiver{
		mine: o.Mine, sink: o.Sink, start: time.Now(), workers: max(o.Workers, 1), ledger: o.Ledger,
		networks: newNetworks(max(o.Networks, 1)), replays: newReplayFilter(max(o.Replays, 1)),
	}
	if !o.Since.IsZero() {
		r.ledger.lost = o.Since.UnixMilli()
	}
	r.ledger.All(func(e *Entry) { e.floor = r.ledger.lost })
	all := 0
	for l := range r.queues {
		n := o.Queue
		if lane(l) != known {
			n /= 4
		}
		r.queues[l] = make(chan *candidate, max(n, 1))
		all += cap(r.queues[l])
		r.rates[l] = perSecond(max(o.Rates[l], 0.01), int(o.Rates[l]/4))
	}
	r.unsealing = newUnsealing(&o)
	r.home = homeRate(o.Rates[known])
	r.rates[known].burst = max(int(o.Rates[known]), 8*r.home.burst)
	all += r.workers + 1
	r.free = make(chan *candidate, all)
	for range all {
		r.free <- new(candidate)
	}
	return r
}

// Do calls f with the ledger, which nobody else uses meanwhile.
func (r *Receiver) Do(f func(*Ledger)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.ledger)
}

func (r *Receiver) count(why Reason) Reason {
	r.Counters.Results[why].Add(1)
	return why
}

// Offer takes a datagram, of which nothing is kept, that came over so many hops.
// It does all that is cheap and never waits; Run does the rest.
func (r *Receiver) Offer(b []byte, from netip.AddrPort, hops int, now time.Time) {
	r.Counters.Offered.Add(1)
	if why := r.offer(b, from, hops, now); why != Taken {
		r.count(why)
	}
}

func (r *Receiver) offer(b []byte, from netip.AddrPort, hops int, now time.Time) Reason {
	if tracer.IsSealed(b) {
		if r.unsealing == nil {
			return Sealed
		}
		return r.unsealing.offer(r, b, from, hops, now)
	}
	return r.offerOpen(b, from, hops, now, false)
}

// offerOpen takes the datagram form, which was sealed or was not.
func (r *Receiver) offerOpen(b []byte, from netip.AddrPort, hops int, now time.Time, sealed bool) Reason {
	signed, err := tracer.ParseDatagram(b)
	if err != nil {
		return Form
	}
	o := offer{signed: signed, from: from.Addr(), port: from.Port(), hops: hops, arrived: now, sealed: sealed}
	// No token is taken yet: this spares the reading of what could not be verified.
	if why := r.admit(&o, false); why != Taken {
		return why
	}
	if why := r.glance(&o); why != Taken {
		return why
	}
	var c *candidate
	select {
	case c = <-r.free:
	default:
		return Busy
	}
	if why := r.admit(&o, true); why != Taken {
		r.free <- c
		return why
	}
	c.offer = o
	c.signed.Message = c.buf[:copy(c.buf[:], signed.Message)]
	select {
	case r.queues[o.lane] <- c:
		return Taken
	default:
		r.free <- c
		return Busy
	}
}

// Submit takes a tracer of any form but does not queue it: for what others wait
// for, as an HTTP request, or nobody does, as a file. It returns a Reason if the
// tracer is refused.
func (r *Receiver) Submit(signed tracer.Signed, from netip.Addr, hops int, now time.Time) (*Received, error) {
	r.Counters.Offered.Add(1)
	o := offer{signed: signed, from: from, hops: hops, arrived: now}
	why := r.glance(&o)
	if why == Taken {
		why = r.admit(&o, true)
	}
	if why != Taken {
		return nil, r.count(why)
	}
	x, why := r.verify(&o)
	if r.count(why) != Taken {
		return nil, why
	}
	return x, nil
}

// glance looks at the message, which nobody has verified.
func (r *Receiver) glance(o *offer) Reason {
	g, ok := tracer.Peek(o.signed.Message)
	if !ok {
		return Form
	}
	o.glance = g
	if !g.To.IsValid() || !r.mine(g.To) {
		return NotMine
	}
	switch age := o.arrived.UnixMilli() - g.Time; {
	case age < -window:
		return Future
	case age > int64(MaxAge/time.Millisecond):
		return Old
	case age > window:
		o.stale = true
	}
	return Taken
}

// admit finds the lane, and takes its tokens if take is set.
func (r *Receiver) admit(o *offer, take bool) Reason {
	network := networkOf(o.from)
	now := time.Since(r.start)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.ledger.entries[o.signed.Key]
	var own *bucket
	var limit rate
	switch {
	case e == nil:
		o.lane = unheard
		if o.from.IsValid() && !r.networks.allows(network, now) {
			return NetworkRate
		}
	case o.stale || !e.athome(network, o.hops):
		o.lane, own, limit = seen, &e.away, awayRate
	case e.standing:
		o.lane, own, limit = known, &e.home, r.home
	default:
		o.lane, own, limit = seen, &e.home, seenRate
	}
	if own != nil && !own.allows(now, limit) {
		return KeyRate
	}
	if !r.buckets[o.lane].allows(now, r.rates[o.lane]) {
		return laneReasons[o.lane]
	}
	if !take {
		return Taken
	}
	// What was verified is in there, so that this costs nobody anything but who
	// sent it again.
	if r.replays.has(&o.signed.Key, &o.glance.Nonce) {
		return Replay
	}
	r.buckets[o.lane].take(now, r.rates[o.lane])
	if own != nil {
		own.take(now, limit)
	} else if o.from.IsValid() {
		r.networks.take(network, now)
	}
	return Taken
}

// verify does what is dear.
func (r *Receiver) verify(o *offer) (*Received, Reason) {
	r.Counters.Verified.Add(1)
	m, err := o.signed.Open()
	if err == tracer.ErrSignature {
		return nil, Signature
	}
	if err != nil {
		return nil, Message
	}
	if m.To != o.glance.To || m.Time != o.glance.Time || m.Nonce != o.glance.Nonce || m.Nonce == [8]byte{} {
		return nil, Message
	}
	if m.To != m.Flow.SrcAddr() && m.To != m.Flow.DstAddr() {
		return nil, NotEnd
	}
	x := &Received{Message: m, From: o.from, Port: o.port, Hops: o.hops, Arrived: o.arrived, Stale: o.stale, Signed: o.signed}
	x.Signed.Message = append([]byte(nil), o.signed.Message...)
	if why := r.note(x); why != Taken {
		return nil, why
	}
	if x.Stale {
		r.Counters.Stale.Add(1)
	}
	if r.sink != nil {
		r.sinking.Lock()
		r.sink(x)
		r.sinking.Unlock()
	}
	return x, Taken
}

// note keeps what is to be known of a verified tracer.
func (r *Receiver) note(x *Received) Reason {
	now := x.Arrived.UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.ledger
	if r.replays.has(&x.Signed.Key, &x.Nonce) {
		return Replay
	}
	e := l.entries[x.Signed.Key]
	if e == nil {
		e = l.add(x.Signed.Key, now)
	}
	r.replays.add(l, e, &x.Nonce, x.Time, now)
	if x.Time <= e.floor {
		x.Stale = true
	}
	if !x.Stale { // what was kept back, or taped, says nothing of the key
		l.Note(x.Signed.Key, x.Message, x.From, x.Hops, now)
	}
	r.Counters.Evicted.Store(l.Evicted)
	x.Level = e.Level()
	return Taken
}

// Remember is told what was taken before the receiver was made, so that it is not
// taken again.
func (r *Receiver) Remember(x *Received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := x.Arrived.UnixMilli()
	e := r.ledger.entries[x.Signed.Key]
	if e == nil {
		e = r.ledger.add(x.Signed.Key, now)
	}
	r.replays.add(r.ledger, e, &x.Nonce, x.Time, now)
}

// Run verifies until ctx is done.
func (r *Receiver) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range r.workers {
		workers.Go(func() {
			for {
				c := r.next(ctx)
				if c == nil {
					return
				}
				x, why := r.verify(&c.offer)
				r.count(why)
				if why == Taken && c.sealed {
					r.unsealing.note(r, x)
				}
				r.free <- c
			}
		})
	}
	if r.unsealing != nil {
		workers.Go(func() { r.unsealing.run(ctx, r) })
	}
	workers.Wait()
}

// next waits for a candidate; those of known keys come first.
func (r *Receiver) next(ctx context.Context) *candidate {
	select {
	case c := <-r.queues[known]:
		return c
	default:
	}
	select {
	case c := <-r.queues[known]:
		return c
	case c := <-r.queues[seen]:
		return c
	case c := <-r.queues[unheard]:
		return c
	case <-ctx.Done():
		return nil
	}
}

// Cost measures what verifying one signature takes here: the least of a few, as
// other programs may get in between.
func Cost() time.Duration {
	signed := tracer.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), make([]byte, 600))
	least := time.Hour
	for range 5 {
		start := time.Now()
		signed.Verify()
		least = min(least, time.Since(start))
	}
	return max(least, time.Microsecond)
}

// Rates returns those of the lanes known, seen and new, of a share of one CPU and
// what one signature costs. A fifth of it is for each of the latter two.
func Rates(share float64, cost time.Duration) [3]float64 {
	all := share / cost.Seconds()
	return [3]float64{all * 3 / 5, all / 5, all / 5}
}

// Refuse counts a tracer that was offered in another form and is none.
func (r *Receiver) Refuse(why Reason) {
	r.Counters.Offered.Add(1)
	r.count(why)
}
