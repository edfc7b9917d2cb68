// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

// status is what the running program says of itself. It is collected by the
// cold side.
type status struct {
	d         *daemon
	now       time.Time
	exporters []*source.Exporter // those that sent most first
}

func (d *daemon) status() *status {
	d.countOverruns()
	s := &status{d: d, now: time.Now()}
	if d.feed == nil {
		return s
	}
	s.exporters = d.feed.Exporters.List()
	slices.SortFunc(s.exporters, func(a, b *source.Exporter) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(b.Datagrams, a.Datagrams), a.Addr.Compare(b.Addr))
	})
	return s
}

// object writes a JSON object. Names are written as they are.
type object struct{ b []byte }

func (o *object) name(name string) {
	if c := o.b[len(o.b)-1]; c != '{' && c != '[' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), name...), `":`...)
}

func (o *object) uint(name string, n uint64) {
	o.name(name)
	o.b = strconv.AppendUint(o.b, n, 10)
}

func (o *object) text(name, text string) {
	o.name(name)
	o.b = tracer.AppendString(o.b, text)
}

func (o *object) open(name string) {
	o.name(name)
	o.b = append(o.b, '{')
}

func (o *object) close() { o.b = append(o.b, '}') }

// json returns the status as one JSON object in one line. Members are only ever
// added to it.
func (s *status) json() []byte {
	d := s.d
	o := object{[]byte{'{'}}
	o.text("version", d.config.Version)
	o.uint("pid", uint64(os.Getpid()))
	o.uint("time", uint64(s.now.Unix()))
	o.uint("uptime", uint64(s.now.Sub(d.started).Seconds()))
	if d.udp != nil {
		o.text("listen", d.config.Listen.String())
	}
	o.name("rate")
	o.b = strconv.AppendFloat(o.b, d.config.Rate, 'f', -1, 64)
	if key, err := d.signer.publicKey(); err == nil {
		o.text("key", hex.EncodeToString(key[:]))
	}
	if d.feed != nil {
		c := &d.feed.Counters
		o.open("received")
		o.uint("datagrams", c.Datagrams.Load())
		o.uint("records", c.Records.Load())
		o.uint("packets", c.Packets.Load())
		o.uint("bytes", c.Bytes.Load())
		o.uint("overrun", c.Overrun.Load())
		o.uint("untaken", c.Untaken.Load())
		o.uint("evicted", c.Evicted.Load())
		o.close()
	}
	if d.capture != nil {
		c := &d.watch.Counters
		o.open("captured")
		o.uint("packets", c.Packets.Load())
		o.uint("bytes", c.Bytes.Load())
		o.uint("flows", c.Flows.Load())
		o.uint("overrun", c.Overrun.Load())
		o.uint("evicted", c.Evicted.Load())
		o.uint("thin", uint64(d.capture.Thin()))
		o.close()
		o.name("interfaces")
		o.b = append(o.b, '[')
		for i, x := range d.capture.States() {
			if i > 0 {
				o.b = append(o.b, ',')
			}
			o.b = append(o.b, '{')
			o.text("name", x.Name)
			if x.Role != source.NoRole {
				o.text("role", x.Role.String())
			}
			if x.Failure != nil {
				o.text("failure", x.Failure.Error())
			}
			o.uint("packets", x.Packets)
			o.uint("bytes", x.Bytes)
			o.uint("overrun", x.Dropped)
			o.close()
		}
		o.b = append(o.b, ']')
	}
	if d.tracked != nil {
		c := &d.tracked.Counters
		o.open("tracked")
		o.uint("packets", c.Packets.Load())
		o.uint("bytes", c.Bytes.Load())
		o.uint("connections", d.tracked.Connections.Load())
		o.uint("uncounted", d.tracked.Uncounted.Load())
		o.uint("inconsistent", d.tracked.Inconsistent.Load())
		o.uint("overrun", c.Overrun.Load())
		if d.uncounted != "" {
			o.text("failure", d.uncounted)
		}
		o.close()
	}
	o.open("private")
	o.uint("translated", d.nat.Translated)
	o.uint("unknown", d.nat.Unknown)
	o.uint("failed", d.nat.Failed)
	o.close()
	o.open("dropped")
	for r := range source.Reasons {
		o.uint(r.Name(), s.sum(func(c *source.Counters) *atomic.Uint64 { return &c.Drops[r] }))
	}
	o.close()
	o.open("selected")
	o.uint("records", s.hits())
	o.uint("lost", s.lost())
	o.uint("unsigned", d.unsaid)
	o.close()
	d.known.json(&o)
	o.open("tracers")
	o.uint("printed", d.printer.lines)
	if d.sender != nil {
		n := &d.sender.Counters
		o.uint("sent", n.Sent)
		o.uint("sent_bytes", n.SentBytes)
		o.uint("waiting", uint64(d.sender.Waiting()))
		o.open("held_back")
		for _, x := range d.heldBack() {
			o.uint(x.name, x.n)
		}
		o.close()
		d.postingJSON(&o)
	}
	o.close()
	d.received.json(&o)
	o.name("recent")
	d.recents.array(&o)
	if d.feed == nil {
		o.close()
		return append(o.b, '\n')
	}
	o.name("exporters")
	o.b = append(o.b, '[')
	for i := range s.exporters {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, '{')
		o.exporter(s.exporters[i])
		o.close()
	}
	o.b = append(o.b, ']')
	o.uint("exporters_forgotten", d.feed.Exporters.Forgotten())
	o.close()
	return append(o.b, '\n')
}

func (o *object) exporter(x *source.Exporter) {
	o.text("address", x.Addr.String())
	if x.Source.Protocol != 0 {
		o.text("protocol", x.Source.Protocol.String())
		o.uint("version", uint64(x.Source.Version))
	}
	if x.Interval != 0 {
		o.uint("sampling_interval", uint64(x.Interval))
	}
	o.uint("last", uint64(max(x.Last, 0)))
	o.uint("datagrams", x.Datagrams)
	o.uint("records", x.Records)
	o.uint("packets", x.Packets)
	o.uint("bytes", x.Bytes)
	o.open("dropped")
	for r, n := range x.Drops {
		if n != 0 {
			o.uint(source.Reason(r).Name(), n)
		}
	}
	o.close()
}

// sum adds a counter up over the sources.
func (s *status) sum(counter func(*source.Counters) *atomic.Uint64) (n uint64) {
	for _, c := range s.d.counters() {
		n += counter(c).Load()
	}
	return n
}

func (s *status) hits() uint64 {
	return s.sum(func(c *source.Counters) *atomic.Uint64 { return &c.Hits })
}

func (s *status) lost() uint64 {
	return s.sum(func(c *source.Counters) *atomic.Uint64 { return &c.Lost })
}

// text returns the status for people.
func (s *status) text() []byte {
	d := s.d
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s"+format+"\n", append([]any{label}, args...)...)
	}
	process := ""
	// In a jail or a container we are process 1, which tells those outside nothing.
	if pid := os.Getpid(); pid != 1 {
		process = fmt.Sprintf(" (process %d)", pid)
	}
	line("overflowd", "%s, running for %s%s", d.config.Version, s.now.Sub(d.started).Round(time.Second), process)
	sends := "printing tracers only"
	if d.sender != nil {
		sends = "sending tracers"
	}
	share := "packets with a chance of " + strconv.FormatFloat(d.config.Rate, 'g', -1, 64)
	if n := math.Round(1 / d.config.Rate); math.Abs(1/d.config.Rate-n) < 1e-6*n {
		share = "1 packet in " + grouped(uint64(n))
	}
	var from []string
	if d.udp != nil {
		from = append(from, "listening on "+d.config.Listen.String())
	}
	if d.capture != nil {
		from = append(from, "capturing on "+d.interfaces())
	}
	if d.tracked != nil {
		from = append(from, "counting connections")
	}
	line("", "%s, selecting %s, %s", strings.Join(from, " and "), share, sends)
	switch key, err := d.signer.publicKey(); {
	case err == nil:
		line("key", "%s", hex.EncodeToString(key[:]))
	case errors.Is(err, identity.ErrNone):
		line("key", "not made yet: the first tracer makes it")
	default:
		line("key", "%v", err)
	}
	if d.feed != nil {
		c := &d.feed.Counters
		line("received", "%s, %s, %s packets, %s bytes", many(c.Datagrams.Load(), "datagram"), many(c.Records.Load(), "record"),
			grouped(c.Packets.Load()), grouped(c.Bytes.Load()))
	}
	if d.capture != nil {
		c := &d.watch.Counters
		thin := ""
		if n := d.capture.Thin(); n > 1 {
			thin = ", of which 1 in " + grouped(uint64(n)) + " is captured now"
		}
		line("captured", "%s, %s bytes, %s%s", many(c.Packets.Load(), "packet"), grouped(c.Bytes.Load()), many(c.Flows.Load(), "flow"), thin)
	}
	if d.tracked != nil {
		c := &d.tracked.Counters
		line("tracked", "%s, %s bytes, %s now", many(c.Packets.Load(), "packet"), grouped(c.Bytes.Load()), many(d.tracked.Connections.Load(), "connection"))
		if n := d.tracked.Uncounted.Load(); n > 0 {
			line("", "%s without counters", many(n, "connection"))
		}
		if n := d.tracked.Inconsistent.Load(); n > 0 {
			line("", "%s that may lack some, as they changed meanwhile", many(n, "list"))
		}
		if d.uncounted != "" {
			line("", "%s", d.uncounted)
		}
	}
	label := "dropped"
	for _, c := range d.counters() {
		for r := range source.Reasons {
			if n := c.Drops[r].Load(); n > 0 {
				line(label, "%s %s", many(n, r.Noun()), r)
				label = ""
			}
		}
		if n := c.Overrun.Load(); n > 0 {
			line(label, "%s by the system, as reading did not keep up", many(n, d.kindOf(c).noun()))
			label = ""
		}
		if n := c.Untaken.Load(); n > 0 {
			line(label, "%s by sFlow agents, for want of resources (the others count for them)", many(n, "sample"))
			label = ""
		}
		if n := c.Evicted.Load(); n > 0 {
			line(label, "%s", d.evicted(n, d.kindOf(c)))
			label = ""
		}
	}
	line("selected", "%s", many(s.hits(), "record"))
	if n := s.lost() + d.unsaid; n > 0 {
		line("", "%s lost, as signing did not keep up or was not possible", grouped(n))
	}
	if n := &d.nat.NATCounters; n.Translated+n.Unknown+n.Failed > 0 {
		line("private", "%s with a private end named by its translation, %s of which none is known", many(n.Translated, "record"), grouped(n.Unknown+n.Failed))
	}
	d.known.text(line)
	line("tracers", "%s printed", grouped(d.printer.lines))
	if d.sender != nil {
		n := &d.sender.Counters
		line("", "%s sent, %s bytes; %s to be told when the limits allow", grouped(n.Sent), grouped(n.SentBytes), many(uint64(d.sender.Waiting()), "end"))
		d.postingText(line)
		if not := d.notSent(); not != "" {
			line("", "not sent: %s", not)
		}
	}
	d.received.text(line)
	if d.capture != nil {
		rows := [][]string{{"INTERFACE", "ROLE", "STATE", "", "PACKETS", "BYTES", "DROPPED"}}
		for _, x := range d.capture.States() {
			role, state := x.Role.String(), "captured"
			if x.Failure != nil {
				state = x.Failure.Error()
			}
			rows = append(rows, []string{x.Name, cmp.Or(role, "-"), state, "", grouped(x.Packets), grouped(x.Bytes), grouped(x.Dropped)})
		}
		b.WriteByte('\n')
		table(&b, rows)
	}
	if d.feed == nil {
		return []byte(b.String())
	}
	if len(s.exporters) == 0 {
		line("exporters", "none was heard")
		return []byte(b.String())
	}
	rows := [][]string{{"EXPORTER", "PROTOCOL", "SAMPLED", "HEARD", "DATAGRAMS", "RECORDS", "PACKETS", "BYTES", "DROPPED"}}
	for i := range s.exporters {
		rows = append(rows, s.row(s.exporters[i]))
	}
	b.WriteByte('\n')
	table(&b, rows)
	if n := d.feed.Exporters.Forgotten(); n > 0 {
		fmt.Fprintf(&b, "%s made room for others\n", many(n, "exporter"))
	}
	return []byte(b.String())
}

func (s *status) row(x *source.Exporter) []string {
	protocol, sampled, heard := "-", "-", "-"
	switch x.Source.Protocol {
	case flow.NetFlow:
		protocol = fmt.Sprintf("NetFlow v%d", x.Source.Version)
	case flow.IPFIX:
		protocol = "IPFIX"
	case flow.SFlow:
		protocol = fmt.Sprintf("sFlow v%d", x.Source.Version)
	}
	if x.Interval != 0 {
		sampled = "1:" + strconv.FormatUint(uint64(x.Interval), 10)
	}
	if x.Last != 0 {
		heard = max(s.now.Sub(time.Unix(x.Last, 0)), 0).Round(time.Second).String() + " ago"
	}
	dropped := uint64(0)
	for _, n := range x.Drops {
		dropped += n
	}
	return []string{x.Addr.String(), protocol, sampled, heard, grouped(x.Datagrams), grouped(x.Records), grouped(x.Packets), grouped(x.Bytes), grouped(dropped)}
}

// table writes rows in columns; those of numbers, from the fifth, to the right.
func table(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, r := range rows {
		for i, cell := range r {
			width := widths[i]
			if i < 4 {
				width = -width
			}
			if i > 0 {
				b.WriteString("  ")
			}
			fmt.Fprintf(b, "%*s", width, cell)
		}
		b.WriteByte('\n')
	}
}

// grouped writes a number with commas.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func many(n uint64, noun string) string { return plural(grouped(n), n, noun) }
