// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
)

// Connections are asked for their counters once in this time. A router has some
// thousands of them.
const period = 10 * time.Second

// A Conntrack takes the connections of the kernel to the selector: what was added
// to the counters of each since it was last seen, and the rest when it ends. So
// the packets that hardware or software offload hides from a capture are seen.
//
// What is known of a connection is never given up for another. If there are more
// than there is room for, those without room are counted when they end, all at
// once.
type Conntrack struct {
	outlet
	Inconsistent atomic.Uint64 // dumps of which the kernel says that something may be missing
	Uncounted    atomic.Uint64 // connections without counters, when they were last listed
	Connections  atomic.Uint64 // likewise, those with

	o        Tracking
	conn     *conntrack.Conn
	listener *conntrack.Listener
	failure  atomic.Pointer[error] // of the last dump

	mu     sync.Mutex // guards what follows: one goroutine lists, one hears of ends
	known  *lru.Table[uint64]
	states []connection // of the slots
	round  uint32
	began  bool // a list was had: what was there before is not counted
}

// connection is how a connection was last seen.
type connection struct {
	packets, bytes [2]uint64
	begin          int64 // when it was first seen, in ms since the Unix epoch; 0: it was there before us
	round          uint32
}

// Tracking is how connections are read.
type Tracking struct {
	Sink     Sink
	Draw     Draw
	Detector *evidence.Detector // or nil
	Flows    int                // connections of which something is known
	// Privileged calls a function on a thread that may ask the kernel: it wants
	// CAP_NET_ADMIN for each request.
	Privileged func(func())
}

// NewConntrack opens what takes privileges to open.
func NewConntrack(ctx context.Context, o Tracking) (*Conntrack, error) {
	if _, err := conntrack.Accounting(); err != nil {
		return nil, err
	}
	listener, err := conntrack.Listen()
	if err != nil {
		return nil, err
	}
	conn, err := conntrack.Dial()
	if err != nil {
		listener.Close()
		return nil, err
	}
	return &Conntrack{outlet: outlet{sink: o.Sink, ctx: ctx}, o: o, conn: conn, listener: listener,
		known: lru.New[uint64](o.Flows), states: make([]connection, o.Flows)}, nil
}

// Close closes it, if Run was never called.
func (c *Conntrack) Close() {
	c.listener.Close()
	c.conn.Close()
}

// Failure returns why the connections could not be listed the last time, or nil.
func (c *Conntrack) Failure() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// CountOverrun asks the kernel how many ends of connections it could not tell us,
// as the buffer was full.
func (c *Conntrack) CountOverrun() { c.Counters.Overrun.Store(c.listener.Overruns()) }

// Run reads connections until ctx is done.
func (c *Conntrack) Run(ctx context.Context) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, c.listener.Interrupt)
	defer stop()
	var listing sync.WaitGroup
	defer listing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.list() // what is there already is not counted
	listing.Go(func() {
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				c.list()
			}
		}
	})
	for {
		err := c.listener.Receive(func(e *conntrack.Entry) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.count(e, time.Now().UnixMilli(), true)
		})
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear of connections that end: %w", err)
		}
		nap(longest) // others end meanwhile
	}
}

// list asks for all connections. Ends wait meanwhile: a connection whose end was
// heard of is not in the list, or it would begin anew.
func (c *Conntrack) list() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	now := time.Now().UnixMilli()
	counted, uncounted := uint64(0), uint64(0)
	var err error
	c.o.Privileged(func() {
		err = c.conn.Dump(func(e *conntrack.Entry) error {
			if e.Counted {
				counted++
			} else {
				uncounted++
			}
			c.count(e, now, false)
			return nil
		})
	})
	switch {
	case errors.Is(err, conntrack.ErrInconsistent):
		c.Inconsistent.Add(1)
	case errors.Is(err, conntrack.ErrFormat):
		add(&c.Counters.Drops[Damaged], 1)
	case err != nil:
		c.failure.Store(&err)
		return
	default: // the list was complete: what was not in it, nor in the one before, is gone
		for slot := range c.known.FromOldest() {
			// Of what is missing for the first time the end may be about to be heard
			// of: then all that was counted of it would be counted again.
			if c.round-c.states[slot].round > 1 {
				c.known.Remove(slot)
			}
		}
	}
	c.began = true
	c.failure.Store(nil)
	c.Connections.Store(counted)
	c.Uncounted.Store(uncounted)
}

// count counts what a connection has carried since it was last seen.
func (c *Conntrack) count(e *conntrack.Entry, now int64, ended bool) {
	if !e.Counted {
		return
	}
	slot, ok := c.known.Find(number(e))
	var last connection
	switch {
	case ok:
		last = c.states[slot]
	case !c.began: // it was there before us
	case !ended && c.known.Len() >= c.o.Flows:
		return // it will be counted when it ends
	default:
		last.begin = now
	}
	if c.began {
		c.emit(e, &last, now)
	}
	switch {
	case ended && ok:
		c.known.Remove(slot)
	case !ended && (ok || c.known.Len() < c.o.Flows):
		slot, _ = c.known.Put(number(e))
		c.states[slot] = connection{e.Packets, e.Bytes, last.begin, c.round}
	}
}

// number tells connections apart. The kernel's is of 32 bits, of which two are the
// same among some ten thousand now and then: those of the key make that rare.
func number(e *conntrack.Entry) uint64 {
	k := &e.Original
	h := uint32(k.SrcPort)<<16 | uint32(k.DstPort)
	for i := 0; i < len(k.Src); i += 4 {
		h = h*0x01000193 ^ binary.BigEndian.Uint32(k.Src[i:])
		h = h*0x01000193 ^ binary.BigEndian.Uint32(k.Dst[i:])
	}
	return uint64(e.ID)<<32 | uint64(h)
}

// emit takes both directions of a connection to the selector.
func (c *Conntrack) emit(e *conntrack.Entry, last *connection, now int64) {
	for way, key := range []*flow.Key{&e.Original, &e.Reply} {
		// Who sets the counters back takes away what was counted since.
		packets, bytes := e.Packets[way], e.Bytes[way]
		if packets >= last.packets[way] && bytes >= last.bytes[way] {
			packets, bytes = packets-last.packets[way], bytes-last.bytes[way]
		}
		if packets == 0 || aside(key) {
			continue
		}
		add(&c.Counters.Records, 1)
		add(&c.Counters.Packets, packets)
		add(&c.Counters.Bytes, bytes)
		s := c.suspect(key, packets, bytes, now)
		k := c.o.Draw.selectors[of(s)].Take(packets)
		if k == 0 {
			continue
		}
		r := flow.Record{Key: *key, Source: flow.Source{Protocol: flow.Conntrack}, Interval: 1,
			Known:   flow.HasPackets | flow.HasBytes | flow.HasEnd,
			Packets: e.Packets[way], Bytes: e.Bytes[way], Start: last.begin, End: now}
		if last.begin != 0 {
			r.Known |= flow.HasStart
		}
		if key.SrcPort|key.DstPort != 0 {
			r.Known |= flow.HasPorts
		}
		if other, ok := e.Other(key); ok {
			r.Known |= flow.HasTranslatedSrc | flow.HasTranslatedDst | flow.HasTranslatedPorts
			r.TranslatedSrc, r.TranslatedDst = other.Src, other.Dst
			r.TranslatedSrcPort, r.TranslatedDstPort = other.SrcPort, other.DstPort
		}
		c.hit(Hit{Record: r, Selected: k, Rate: c.o.Draw.rates[of(s)], Suspicion: s})
	}
}

// suspect looks at what a connection has carried since it was last listed, at most a
// period ago.
func (c *Conntrack) suspect(key *flow.Key, packets, bytes uint64, now int64) evidence.Reasons {
	if c.o.Detector == nil {
		return 0
	}
	c.o.Detector.Sync()
	return c.o.Detector.Record(nil, &flow.Record{Key: *key, Known: flow.HasPackets | flow.HasStart | flow.HasEnd,
		Packets: packets, Bytes: bytes, Start: now - period.Milliseconds(), End: now}, packets, now)
}

// aside tells whether a flow is none of the network's: within this host, or one of
// tracers.
func aside(k *flow.Key) bool {
	const udp, tracers = 17, 65535
	return k.SrcAddr().IsLoopback() || k.Protocol == udp && (k.SrcPort == tracers || k.DstPort == tracers)
}
