// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/source"
)

// complain says once, for each reason, that something came in which gave no
// record. The sums at the end say how often. It also says what became of the
// interfaces.
func (d *daemon) complain() {
	d.countOverruns()
	for _, c := range d.counters() {
		if n := c.Overrun.Load(); n > 0 && !d.overran[c] {
			d.overran[c] = true
			d.log.Printf("the system dropped %s, as reading did not keep up; more are only counted", count(n, d.kindOf(c).noun()))
		}
		for r := range source.Reasons {
			if !d.said[r] && c.Drops[r].Load() > 0 {
				d.said[r] = true
				if d.config.PcapFile == "" { // a file's sums follow soon
					d.log.Printf("received a %s %s; more of them are only counted", r.Noun(), r)
				}
			}
		}
	}
	d.sayRoutes()
	if d.capture != nil {
		d.sayInterfaces()
	}
	if d.tracked != nil {
		why := ""
		if err := errors.Join(accounting(), d.tracked.Failure()); err != nil {
			why = err.Error()
		}
		if why != d.uncounted && why != "" {
			d.log.Printf("connections cannot be counted: %s", why)
		}
		d.uncounted = why
	}
	if d.nat.Failed > 0 && !d.untranslated {
		d.untranslated = true
		d.log.Printf("private ends keep their addresses, and their flows are not sent: %v", d.nat.Failure)
	}
}

// sayInterfaces says which of the interfaces came and went.
func (d *daemon) sayInterfaces() {
	now := d.capture.States()
	for i := range now {
		s := &now[i]
		was := source.State{}
		if d.taps != nil {
			was = d.taps[i]
		}
		switch {
		case s.There && s.Opened != was.Opened:
			again := ""
			if s.Opened > 1 {
				again = " again"
			}
			d.log.Printf("capturing on %s%s", s.Name, again)
		case !s.There && (d.taps == nil || was.There || !errors.Is(s.Failure, capture.ErrNoInterface) && errors.Is(was.Failure, capture.ErrNoInterface)):
			d.log.Printf("waiting for the interface %s: %v", s.Name, s.Failure)
		}
	}
	if n := d.capture.Thin(); n != d.thin {
		if d.thin != 0 {
			d.log.Printf("capturing 1 packet in %d from now on", n)
		}
		d.thin = n
	}
	d.taps = now
}

// countOverruns asks the system what it has dropped.
func (d *daemon) countOverruns() {
	if d.udp != nil {
		d.udp.CountOverrun(d.feed)
	}
	if d.capture != nil {
		d.capture.CountOverrun()
	}
	if d.tracked != nil {
		d.tracked.CountOverrun()
	}
}

// kind of a source.
type kind uint8

const (
	exports kind = iota
	packets
	connections
)

// kindOf returns the kind of the source that has the counters.
func (d *daemon) kindOf(c *source.Counters) kind {
	switch {
	case d.feed != nil && c == &d.feed.Counters:
		return exports
	case d.tracked != nil && c == &d.tracked.Counters:
		return connections
	}
	return packets
}

// noun is what a source of the kind may lose.
func (k kind) noun() string {
	return [...]string{"datagram", "frame", "connection's end"}[k]
}

// sums logs what was seen and done.
func (d *daemon) sums() {
	for _, c := range d.counters() {
		d.sumsOf(c)
	}
	d.sumsOfTracers()
}

func (d *daemon) sumsOf(c *source.Counters) {
	of := d.kindOf(c)
	var from string
	switch {
	case d.file != nil && d.file.Frames != source.Either && (d.file.Frames == source.Packets) != (of == packets):
		return // it was of the other kind
	case d.file != nil:
		from = d.config.PcapFile
	case of == exports:
		from = d.config.Listen.String()
	case of == connections:
		from = "connections"
	default:
		from = d.interfaces()
	}
	switch of {
	case exports:
		d.log.Printf("%s: %s, %s, %d packets, %d bytes; %s with selected packets", from,
			count(c.Datagrams.Load(), "flow export datagram"), count(c.Records.Load(), "record"),
			c.Packets.Load(), c.Bytes.Load(), count(c.Hits.Load(), "record"))
	case packets:
		d.log.Printf("%s: %s, %d bytes, %s; %s selected", from, count(c.Packets.Load(), "packet"),
			c.Bytes.Load(), count(c.Flows.Load(), "flow"), count(c.Hits.Load(), "packet"))
	case connections:
		d.log.Printf("%s: %s, %d bytes; %s with selected packets", from, count(c.Packets.Load(), "packet"),
			c.Bytes.Load(), count(c.Hits.Load(), "record"))
	}
	for r := range source.Reasons {
		if n := c.Drops[r].Load(); n > 0 {
			d.log.Printf("%s: %s %s", from, count(n, r.Noun()), r)
		}
	}
	if n := c.Overrun.Load(); n > 0 {
		d.log.Printf("%s: the system dropped %s, as reading did not keep up", from, count(n, d.kindOf(c).noun()))
	}
	if n := c.Untaken.Load(); n > 0 {
		d.log.Printf("%s: %s not taken by sFlow agents, for want of resources; the others count for them", from, count(n, "sample"))
	}
	if n := c.Evicted.Load(); n > 0 {
		d.log.Printf("%s: %s", from, d.evicted(n, of))
	}
	if n := c.Lost.Load(); n > 0 {
		d.log.Printf("%s lost, as signing did not keep up", count(n, "selected record"))
	}
}

// evicted says what made room for others.
func (d *daemon) evicted(n uint64, of kind) string {
	if of == exports {
		return fmt.Sprintf("%d domains or templates of exporters made room for others: there are more than --max-exporters %d has room for", n, d.config.Remember)
	}
	return fmt.Sprintf("%s made room for others before the end: there are more than --flows %d has room for", count(n, "flow"), d.config.Flows)
}

// interfaces names those that are captured on.
func (d *daemon) interfaces() string {
	var names []string
	for _, i := range d.config.Interfaces {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

func (d *daemon) sumsOfTracers() {
	if d.unsaid > 0 {
		d.log.Printf("%s could not be signed", count(d.unsaid, "tracer"))
	}
	if d.sender == nil {
		return
	}
	s := &d.sender.Counters
	d.log.Printf("sent %s, %d bytes; %d addresses were still to be told when the limits allow", count(s.Sent, "tracer"), s.SentBytes, d.sender.Waiting())
	if not := d.notSent(); not != "" {
		d.log.Printf("not sent: %s", not)
	}
}

// notSent says how many ends of flows were not told, by reason.
func (d *daemon) notSent() string {
	s := &d.sender.Counters
	var not []string
	for r := policy.Allowed + 1; r < policy.Reasons; r++ {
		if n := s.Refused[r]; n > 0 {
			not = append(not, fmt.Sprintf("%d (%s)", n, r))
		}
	}
	for _, x := range []struct {
		n    uint64
		text string
	}{
		{s.Failed, "the network refused"},
		{s.Unset, "the clock is not set"},
		{s.LeftAlone, "did not take one within a day"},
		{s.Unsealed, "no key to seal it, or no room"},
		{s.Crowded, "selected packets of addresses that would have waited too long"},
	} {
		if x.n > 0 {
			not = append(not, fmt.Sprintf("%d (%s)", x.n, x.text))
		}
	}
	return strings.Join(not, ", ")
}

func count(n uint64, noun string) string { return plural(strconv.FormatUint(n, 10), n, noun) }

func plural(number string, n uint64, noun string) string {
	if n == 1 {
		return number + " " + noun
	}
	if noun == "prefix" {
		return number + " prefixes"
	}
	return number + " " + noun + "s"
}
