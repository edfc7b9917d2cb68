// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/selector"
)

// Role of an interface.
type Role = evidence.Role

const (
	NoRole = evidence.NoRole
	WAN    = evidence.WAN // towards the Internet
	LAN    = evidence.LAN // towards the hosts that this router serves
)

// An Interface to capture on.
type Interface struct {
	Name string
	Role Role
}

// MaxInterfaces that can be captured at once: two ports each, one a direction,
// of the flow table.
const MaxInterfaces = 128

// MaxThin is the most that thinning by itself goes to.
const MaxThin = 1024

// Capturing is how packets are captured.
type Capturing struct {
	Interfaces []Interface
	Filter     capture.Filter          // its Thin is where thinning begins
	Auto       bool                    // thins as the load and the losses want it
	Rate       float64                 // chance of one packet to be selected
	Boosted    float64                 // that of one of a suspected flow
	Guards     func() *evidence.Guards // of the interfaces; the pointer changes when they do
	// Selector returns a new one of a chance.
	Selector func(p float64) (*selector.Selector, error)
}

// A Capture takes the packets of interfaces to the selector, all in one
// goroutine: a router has few processors.
type Capture struct {
	*Watch
	o      Capturing
	taps   []*tap
	wake   *wake
	thin   uint32
	load   load
	guards *evidence.Guards
	shown  atomic.Uint32 // thin, for the status
}

// A tap is one interface.
type tap struct {
	Interface
	port flowtable.Port // of what comes in; the next one of what goes out
	ring *capture.Ring  // nil: there is no such interface now
	in   view
	out  view
	// What is in the ring still came through the filter before the last one:
	// the new one holds from this time on, in ns since the Unix epoch; 0: now.
	from int64
	next uint32 // thin of then

	counted counted
	opened  atomic.Uint64 // how often a ring was made
	there   atomic.Bool
	failure atomic.Pointer[error] // why there is no ring

	mu   sync.Mutex // guards what follows
	last *capture.Ring
	lost uint64 // frames dropped of the rings before
}

// dropped returns how many frames the kernel has dropped.
func (t *tap) dropped() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		return 0
	}
	return t.lost + t.last.Stats().Dropped
}

// State of an interface.
type State struct {
	Interface
	There   bool   // it is captured on now
	Failure error  // why not, or nil
	Opened  uint64 // how often capture began
	Packets uint64
	Bytes   uint64
	Dropped uint64 // frames that the kernel dropped, as the ring was full
}

// NewCapture opens the interfaces. One that is not there is waited for; another
// error ends it.
func NewCapture(w *Watch, o Capturing) (*Capture, error) {
	w.gather = true
	c := &Capture{Watch: w, o: o, thin: max(o.Filter.Thin, 1)}
	for i, n := range o.Interfaces {
		t := &tap{Interface: n, port: flowtable.Port(2 * i)}
		c.taps = append(c.taps, t)
		// Both directions share the selectors, of which scale sets the chances.
		draw, err := NewDraw(o.Rate, o.Boosted, o.Selector)
		if err != nil {
			c.Close()
			return nil, err
		}
		t.in = view{port: t.port, draw: draw, record: flow.Record{Source: flow.Source{Protocol: flow.Capture}, Known: flow.HasIngress}}
		t.out = t.in
		t.out.port, t.out.record.Known = t.port+1, flow.HasEgress
		if err := c.open(t); err != nil && !errors.Is(err, capture.ErrNoInterface) {
			c.Close()
			return nil, err
		}
	}
	c.shown.Store(c.thin)
	var err error
	if c.wake, err = newWake(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// open makes the ring of an interface.
func (c *Capture) open(t *tap) error {
	f := c.o.Filter
	f.Thin = c.thin
	ring, err := capture.Open(t.Name, &f)
	if err != nil {
		if last := t.failure.Load(); last == nil || (*last).Error() != err.Error() {
			t.failure.Store(&err)
		}
		return err
	}
	t.ring = ring
	t.in.link, t.out.link = ring.Link(), ring.Link()
	t.in.record.Ingress, t.out.record.Egress = uint32(ring.Index()), uint32(ring.Index())
	c.guards, t.in.guard = nil, nil
	c.scale(t, c.thin)
	t.mu.Lock()
	if t.last != nil {
		t.lost += t.last.Stats().Dropped
	}
	t.last = ring
	t.mu.Unlock()
	t.failure.Store(nil)
	t.opened.Add(1)
	t.there.Store(true)
	return nil
}

// scale makes a packet of an interface count as that many.
func (c *Capture) scale(t *tap, thin uint32) {
	t.from = 0
	if t.in.thin == thin {
		return
	}
	t.in.thin, t.out.thin = thin, thin
	// No error: config holds thin to 1/rate. Of suspected flows no more can be
	// selected than come here.
	draw, chance := &t.in.draw, capture.Chance(thin)
	draw.rates = [2]float64{c.o.Rate, max(c.o.Rate, min(c.o.Boosted, chance))}
	for i, s := range draw.selectors {
		s.SetChance(min(draw.rates[i]/chance, 1))
	}
	t.out.draw = *draw
	c.table.Forget(t.port)
	c.table.Forget(t.port + 1)
}

// close gives the ring of an interface back.
func (c *Capture) close(t *tap) {
	if t.ring != nil {
		t.there.Store(false)
		t.ring.Close()
		t.ring = nil
	}
}

// Close closes the interfaces, if Run was never called.
func (c *Capture) Close() {
	for _, t := range c.taps {
		c.close(t)
	}
	if c.wake != nil {
		c.wake.close()
	}
}

// Thin returns N: of N packets 1 is captured now.
func (c *Capture) Thin() uint32 { return c.shown.Load() }

// States returns those of the interfaces. It may be called while Run runs, by
// one goroutine.
func (c *Capture) States() []State {
	states := make([]State, len(c.taps))
	for i, t := range c.taps {
		states[i] = State{Interface: t.Interface, There: t.there.Load(), Opened: t.opened.Load(),
			Packets: t.counted.packets.Load(), Bytes: t.counted.bytes.Load(), Dropped: t.dropped()}
		if f := t.failure.Load(); f != nil {
			states[i].Failure = *f
		} else if !states[i].There {
			states[i].Failure = capture.ErrNoInterface
		}
	}
	return states
}

// CountOverrun asks the system how many frames it has dropped, as the rings were
// full, and puts the number into the counters. It may be called while Run runs.
func (c *Capture) CountOverrun() {
	n := uint64(0)
	for _, t := range c.taps {
		n += t.dropped()
	}
	c.Counters.Overrun.Store(n)
}

// drain takes what there is in the ring of an interface, at most the ring once,
// and tells whether blocks were full.
func (c *Capture) drain(t *tap) bool {
	full := t.ring.Full()
	c.also = &t.counted
	c.sync()
	var f capture.Frame
	for n := 0; n < maxDrain && t.ring.Next(&f); n++ {
		if t.from != 0 && begun(f.Nanoseconds()-t.from) {
			c.flush(&t.in)
			c.scale(t, t.next)
		}
		v := &t.in
		if f.Outgoing {
			v = &t.out
		}
		c.see(v, f.Data, f.Length, f.Time, uint32(f.VLAN)<<16|uint32(f.Segment))
	}
	c.flush(&t.in)
	return t.ring.Full() != full
}

// sync takes over what is known by now, once a batch.
func (c *Capture) sync() {
	if c.detector == nil {
		return
	}
	c.detector.Sync()
	if c.o.Guards == nil {
		return
	}
	if g := c.o.Guards(); g != c.guards {
		c.guards = g
		for _, t := range c.taps {
			t.in.guard = (*g)[t.in.record.Ingress]
		}
	}
}

// begun tells whether a filter holds that was put there so long ago, in ns. What
// is in the ring is no older than it takes to fill it, unless the clock was set
// back.
func begun(since int64) bool { return since >= 0 || since < -int64(10*time.Second) }

// maxDrain is about how many frames a ring holds: then it is the turn of the
// others, and of the end.
const maxDrain = 16384

// setThin changes the filter of all interfaces.
func (c *Capture) setThin(n uint32) {
	f := c.o.Filter
	f.Thin = n
	for _, t := range c.taps {
		if t.ring == nil || t.ring.SetFilter(&f) != nil {
			continue
		}
		t.from, t.next = time.Now().UnixNano(), n
	}
	c.thin = n
	c.shown.Store(n)
}

// load tells how busy we are, for thinning by itself.
type load struct {
	at      time.Time     // when it was looked at
	spent   time.Duration // processor time of the thread until then
	dropped uint64        // frames, until then
	easy    int           // how many times in turn it was easy
}

// Thinning by itself keeps the share of one processor that capture takes below
// high. It goes to a quarter of the packets at once when the share is above, or
// frames were dropped, and back to four times as many when that kept below low
// for patience times of a second.
const (
	high     = 0.15
	low      = 0.10
	step     = 4
	patience = 10
)

// adapt is to be called about once a second.
func (c *Capture) adapt(now time.Time, spent time.Duration, dropped uint64) {
	l := &c.load
	defer func() { l.at, l.spent, l.dropped = now, spent, dropped }()
	passed := now.Sub(l.at)
	if l.at.IsZero() || passed <= 0 {
		return
	}
	share := float64(spent-l.spent) / float64(passed)
	most := uint32(min(MaxThin, 1/c.o.Rate))
	switch {
	case share > high || dropped > l.dropped:
		l.easy = 0
		if n := min(c.thin*step, most); n > c.thin {
			c.setThin(n)
		}
	case c.thin == 1 || share*step > low:
		l.easy = 0
	default:
		if l.easy++; l.easy >= patience {
			l.easy = 0
			c.setThin(max(c.thin/step, 1))
		}
	}
}
