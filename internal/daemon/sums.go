// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/source"
)

// complain says once, for each reason, that something came in which gave no
// record. The sums at the end say how often.
func (d *daemon) complain() {
	if d.udp != nil {
		d.udp.CountOverrun(d.feed)
	}
	if n := d.feed.Counters.Overrun.Load(); n > 0 && !d.overran {
		d.overran = true
		d.log.Printf("the system dropped %s, as reading did not keep up; more are only counted", count(n, "datagram"))
	}
	for r := range source.Reasons {
		if !d.said[r] && d.feed.Counters.Drops[r].Load() > 0 {
			d.said[r] = true
			if d.config.PcapFile == "" { // a file's sums follow soon
				d.log.Printf("received a %s %s; more of them are only counted", r.Noun(), r)
			}
		}
	}
}

// sums logs what was seen and done.
func (d *daemon) sums() {
	c := &d.feed.Counters
	from := d.config.PcapFile
	if from == "" {
		from = d.config.Listen.String()
	}
	d.log.Printf("%s: %s, %s, %d packets, %d bytes; %s with selected packets", from,
		count(c.Datagrams.Load(), "flow export datagram"), count(c.Records.Load(), "record"),
		c.Packets.Load(), c.Bytes.Load(), count(c.Hits.Load(), "record"))
	for r := range source.Reasons {
		if n := c.Drops[r].Load(); n > 0 {
			d.log.Printf("%s: %s %s", from, count(n, r.Noun()), r)
		}
	}
	if n := c.Overrun.Load(); n > 0 {
		d.log.Printf("%s: the system dropped %s, as reading did not keep up", from, count(n, "datagram"))
	}
	if n := c.Untaken.Load(); n > 0 {
		d.log.Printf("%s: %s not taken by sFlow agents, for want of resources; the others count for them", from, count(n, "sample"))
	}
	if n := c.Evicted.Load(); n > 0 {
		d.log.Printf("%s: %d domains or templates of exporters made room for others: there are more than --max-exporters %d has room for",
			from, n, d.config.Remember)
	}
	if n := c.Lost.Load(); n > 0 {
		d.log.Printf("%s lost, as signing did not keep up", count(n, "selected record"))
	}
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
	return number + " " + noun + "s"
}
