// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

const (
	// ledgerKeys with standing are remembered, and as many without. Their file has
	// less than 32 kB: written twice a day it keeps to the 64 kB of flash that are
	// allowed.
	ledgerKeys  = 128
	ledgerEvery = 12 * time.Hour
	// receiveShare of the processor is for signatures. One takes 15 ms of a 580 MHz
	// 24Kc, so that some 6 a second are verified there.
	receiveShare = 0.1
	// readShare of it is for reading what comes to each of the sockets: past that, what
	// comes is dropped by the kernel, unread.
	readShare    = 0.2
	receiveBytes = 256 << 10 // that the kernel is asked to hold for us
	// skew of clocks that are set.
	skew = 10 * time.Second
	// linesAtOnce of what is received are logged, and one more a minute.
	linesAtOnce = 20
)

// receiving takes tracers. What it does with them it does on the cold side, by
// what it sends to tell.
type receiving struct {
	tell     chan func() // unbuffered, never closed; nil if nothing is received
	d        *daemon
	receiver *receiver.Receiver
	sockets  []*receiver.Socket
	ledger   string // path
	seal     receiver.SealKeys
	unread   string // why these cannot be read, as it was said
	ends     *flowtable.Ends
	overran  uint64    // what the captures had dropped
	gap      time.Time // when they last dropped something

	lost     atomic.Uint64 // tracers that were taken and not told, as the cold side did not keep up
	genuine  uint64        // of flows that we saw
	spoofed  uint64        // that name us as source of flows that we did not send
	last     spoofing
	tellings told
	lines    float64 // that may be logged
	filled   time.Time
	unlogged uint64
	failed   string // why the ledger could not be written, as it was said
}

// spoofing is the last flow that somebody sent in our name.
type spoofing struct {
	at       time.Time
	from, to netip.Addr
	who      string
}

// takeReceipts takes what comes back to the transport, until it is closed.
func (d *daemon) takeReceipts(u *sender.UDP) {
	d.answers = make(chan func(), 16)
	d.sender.TakeReceipts()
	go u.Receive(func(b []byte, from netip.Addr) {
		receipt := bytes.Clone(b)
		select {
		case d.answers <- func() { d.sender.Answer(receipt, from) }:
		default: // they are no more than a courtesy
		}
	})
}

func (d *daemon) openReceiving() error {
	x := &d.received
	if err := d.lookUpOwn(); err != nil {
		return fmt.Errorf("look up our own addresses, for which tracers are received: %w", err)
	}
	x.d, x.ledger = d, filepath.Join(d.config.StateDir, "ledger.db")
	ledger, err := receiver.LoadLedger(x.ledger, ledgerKeys)
	if err != nil {
		d.log.Printf("%v: it begins anew", err)
	}
	var errs []error
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		s, err := receiver.Listen(netip.AddrPortFrom(a, tracer.Port), receiveBytes)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.Share = readShare
		x.sockets = append(x.sockets, s)
	}
	if len(x.sockets) == 0 {
		return errors.Join(errs...)
	}
	x.seal.Dir = d.config.StateDir
	if err := x.seal.Load(); err != nil {
		d.log.Print(err)
	}
	x.receiver = receiver.New(receiver.Options{
		Mine: x.mine, Ledger: ledger, Rates: receiver.Rates(receiveShare*3/4, receiver.Cost()),
		OpenRates: receiver.OpenRates(receiveShare/4, receiver.OpenCost(receiver.MaxSealKeys)), Queue: 32, Replays: 2048, Networks: 256, Workers: 1,
		Since: time.Now(), Sink: x.sink, Unseal: x.seal.Open,
	})
	x.tell = make(chan func())
	x.lines, x.filled = linesAtOnce, time.Now()
	if d.watchesAll() {
		x.ends = flowtable.NewEnds(time.Now())
		d.watch.Remember(x.ends)
	}
	d.log.Printf("receiving tracers at port %d", tracer.Port)
	return nil
}

// watchesAll tells whether no flow with the Internet escapes us: all packets of an
// interface towards it are captured.
func (d *daemon) watchesAll() bool {
	if d.capture == nil || d.config.ThinAuto || d.config.Thin > 1 {
		return false
	}
	for _, i := range d.config.Interfaces {
		if i.Role == source.WAN {
			return true
		}
	}
	return false
}

func (x *receiving) mine(a netip.Addr) bool {
	if x.d.policy.Mine(a) {
		return true
	}
	for _, p := range x.d.config.ReceiveTo {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// sink is called by the receiver. It does not wait longer than the cold side
// usually takes.
func (x *receiving) sink(t *receiver.Received) {
	select {
	case x.tell <- func() { x.take(t) }:
	case <-time.After(time.Second):
		x.lost.Add(1)
	}
}

func (x *receiving) run(ctx context.Context) {
	if x.receiver == nil {
		return
	}
	var group sync.WaitGroup
	for _, s := range x.sockets {
		group.Go(func() {
			if err := s.Run(ctx, x.receiver.Offer); err != nil {
				x.d.log.Printf("no tracers are received any more: %v", err)
			}
		})
	}
	group.Go(func() { x.receiver.Run(ctx) })
	group.Wait()
}

func (x *receiving) close() {
	for _, s := range x.sockets {
		s.Close()
	}
}

// end writes the ledger, if its time has come.
func (x *receiving) end() error {
	if x.receiver != nil {
		x.save()
	}
	return nil
}

func (x *receiving) tick() {
	if x.receiver == nil {
		return
	}
	now := time.Now()
	if x.ends != nil {
		x.ends.Turn(now)
	}
	if err := x.seal.Load(); err != nil && err.Error() != x.unread { // a key that was made meanwhile
		x.unread = err.Error()
		x.d.log.Print(err)
	}
	if n := x.overruns(); n != x.overran {
		x.overran, x.gap = n, now
	}
	if x.unlogged > 0 && x.may(now) {
		x.d.log.Printf("received %s more, which are not logged", many(x.unlogged, "tracer"))
		x.unlogged = 0
	}
	x.save()
}

func (x *receiving) overruns() (n uint64) {
	if x.d.watch != nil {
		n = x.d.watch.Counters.Overrun.Load()
	}
	return n
}

// save writes the ledger, at most twice a day by the time of the file: also if the
// program is started again and again.
func (x *receiving) save() {
	if info, err := os.Stat(x.ledger); err == nil {
		if age := time.Since(info.ModTime()); age >= 0 && age < ledgerEvery {
			return
		}
	} else if time.Since(x.d.started) < time.Minute || x.failed != "" && time.Since(x.d.started) < ledgerEvery {
		return // there is little to lose
	}
	err := x.receiver.SaveLedger(x.ledger, ledgerKeys)
	if err != nil && err.Error() != x.failed {
		x.failed = err.Error()
		x.d.log.Print(err)
	}
}

// A witness is what we know ourselves of a flow that a tracer tells of.
type witness uint8

const (
	unknown witness = iota
	ours            // it passed here
	notOurs         // it is said to come from us, and did not
)

// witness looks a flow up in what passed.
func (x *receiving) witness(t *receiver.Received) witness {
	if x.ends == nil || t.Stale {
		return unknown
	}
	if x.ends.Know(&t.Flow.Key) {
		return ours
	}
	if t.To != t.Flow.SrcAddr() {
		return unknown // of what was to come to us, something may have been lost on its way
	}
	begin := t.Arrived.Add(-time.Minute)
	if t.Flow.Known&flow.HasStart != 0 {
		begin = time.UnixMilli(t.Flow.Start)
	}
	begin = begin.Add(-skew)
	if begin.Before(x.ends.Since()) || !x.gap.Before(begin) || t.Arrived.Sub(begin) > flowtable.Active {
		return unknown
	}
	return notOurs
}

// take is told a tracer on the cold side.
func (x *receiving) take(t *receiver.Received) {
	w := x.witness(t)
	x.receiver.Do(func(l *receiver.Ledger) {
		e := l.Find(t.Signed.Key)
		if e == nil {
			return
		}
		switch w {
		case ours:
			e.Seen++
		case notOurs:
			e.Foreign++
		}
	})
	switch w {
	case ours:
		x.genuine++
	case notOurs:
		x.spoofed++
		x.last = spoofing{t.Arrived, t.Flow.SrcAddr(), t.Flow.DstAddr(), who(t)}
	}
	x.tellings.add(t, w)
	if !x.may(t.Arrived) {
		x.unlogged++
		return
	}
	x.d.log.Print(sentence(t, w))
}

// may tells whether a line may be logged, and takes it.
func (x *receiving) may(now time.Time) bool {
	x.lines = min(linesAtOnce, x.lines+now.Sub(x.filled).Minutes())
	x.filled = now
	if x.lines < 1 {
		return false
	}
	x.lines--
	return true
}

// sentence says what a tracer says, and what we know of it.
func sentence(t *receiver.Received, w witness) string {
	f := &t.Flow
	var b strings.Builder
	if w == notOurs {
		fmt.Fprintf(&b, "SPOOFED: somebody sends in the name of %s: ", f.SrcAddr())
	}
	fmt.Fprintf(&b, "%s tells of ", who(t))
	if t.Rate > 0 {
		fmt.Fprintf(&b, "about %s packets of ", strconv.FormatFloat(float64(t.Selected)/t.Rate, 'g', 3, 64))
	}
	fmt.Fprintf(&b, "a flow from %s to %s", f.SrcAddr(), f.DstAddr())
	if f.Known&flow.HasPorts != 0 {
		fmt.Fprintf(&b, " port %d", f.DstPort)
	}
	fmt.Fprintf(&b, ", protocol %d", f.Protocol)
	if t.Spoofed == "yes" {
		b.WriteString(", and that its source is forged")
	}
	switch {
	case w == ours:
		b.WriteString("; we saw it, too")
	case w == notOurs:
		b.WriteString("; we sent no such flow")
	case t.Stale:
		b.WriteString("; too late to count")
	}
	return b.String()
}

// names are those that the sender of a tracer gives himself.
func names(t *receiver.Received) string {
	var names []string
	for _, s := range []string{t.Contact.Identity, t.Contact.Email, t.Contact.URL} {
		if s != "" {
			names = append(names, printable(s))
		}
	}
	if t.Contact.ASN != 0 {
		names = append(names, "AS"+strconv.FormatUint(uint64(t.Contact.ASN), 10))
	}
	return strings.Join(names, " ")
}

// who names the sender of a tracer.
func who(t *receiver.Received) string {
	distance := ""
	if t.Hops >= 0 {
		distance = ", " + many(uint64(t.Hops), "hop") + " away"
	}
	return fmt.Sprintf("%s (key %.16s, %s%s)", cmp.Or(names(t), "somebody"), t.Signed.Key, t.Level, distance)
}

// printable is what a stranger wrote, as it may stand in a log.
func printable(s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > 80 {
			return -1
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

func (x *receiving) refused() (n uint64) {
	for r := receiver.Taken + 1; r < receiver.Reasons; r++ {
		n += x.receiver.Counters.Results[r].Load()
	}
	return n
}

// json adds to the status.
func (x *receiving) json(o *object) {
	if x.receiver == nil {
		return
	}
	c := &x.receiver.Counters
	o.open("receiving")
	o.uint("offered", c.Offered.Load())
	o.uint("stale", c.Stale.Load())
	o.open("results")
	for r := range receiver.Reasons {
		o.uint(r.Name(), c.Results[r].Load())
	}
	o.close()
	overrun := uint64(0)
	for _, s := range x.sockets {
		overrun += s.Overrun()
	}
	o.uint("overrun", overrun)
	o.uint("confirmed", x.genuine)
	o.uint("spoofed", x.spoofed)
	var standing, fresh int
	x.receiver.Do(func(l *receiver.Ledger) { standing, fresh = l.Len() })
	o.uint("keys_with_standing", uint64(standing))
	o.uint("keys_new", uint64(fresh))
	if x.spoofed > 0 {
		o.open("last_spoofed")
		o.uint("time", uint64(x.last.at.Unix()))
		o.text("source", x.last.from.String())
		o.text("destination", x.last.to.String())
		o.text("told_by", x.last.who)
		o.close()
	}
	o.name("recent")
	x.tellings.array(o)
	o.close()
}

// text adds to the status for people.
func (x *receiving) text(line func(label, format string, args ...any)) {
	if x.receiver == nil {
		return
	}
	line("told", "%s of others, %s refused; %s of flows that we saw", many(x.receiver.Counters.Results[receiver.Taken].Load(), "tracer"), grouped(x.refused()), grouped(x.genuine))
	if x.spoofed > 0 {
		line("SPOOFED", "%s of flows in our name that we did not send; the last from %s to %s at %s UTC,", many(x.spoofed, "tracer"), x.last.from, x.last.to, x.last.at.UTC().Format("2006-01-02 15:04:05"))
		line("", "as %s says", x.last.who)
	}
}
