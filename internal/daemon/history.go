// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"math"
	"strconv"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/tracer"
)

const (
	interval  = 5 * time.Minute
	intervals = int(24 * time.Hour / interval)
)

// Series of the history; after them those of heldBack.
const (
	seriesPackets = iota
	seriesSelected
	seriesPrinted
	seriesSent
	seriesHeldBack
)

const allSeries = seriesHeldBack + int(policy.Reasons-policy.Allowed-1) + 3

// heldBack is what was not sent, by reason.
type heldBack struct {
	name string
	n    uint64
}

func (d *daemon) heldBack() []heldBack {
	n := &d.sender.Counters
	all := make([]heldBack, 0, allSeries-seriesHeldBack)
	for r := policy.Allowed + 1; r < policy.Reasons; r++ {
		all = append(all, heldBack{r.Name(), n.Refused[r]})
	}
	return append(all, heldBack{"failed", n.Failed}, heldBack{"clock", n.Unset}, heldBack{"crowded", n.Crowded})
}

// history is what happened in the intervals of the last day. Time is that since
// the start, as the clock of a router jumps.
type history struct {
	rows [intervals][allSeries]uint32 // a ring; what is too much for 32 bits stays at their most
	row  int                          // the number of the newest, from the start on
	last [allSeries]uint64            // totals, as they were
}

// observe adds what came since it was last called.
func (h *history) observe(since time.Duration, totals *[allSeries]uint64) {
	for now := int(since / interval); h.row < now; h.row++ {
		if now-h.row > intervals {
			h.row = now - intervals // all rows will be cleared
		}
		h.rows[(h.row+1)%intervals] = [allSeries]uint32{}
	}
	row := &h.rows[h.row%intervals]
	for i, n := range totals {
		row[i] = uint32(min(uint64(row[i])+n-h.last[i], math.MaxUint32))
	}
	h.last = *totals
}

// appendSeries appends a series, the oldest interval first. It is all zero if no is
// true.
func (h *history) appendSeries(b []byte, series int) (_ []byte, no bool) {
	no = true
	b = append(b, '[')
	for r := max(0, h.row-intervals+1); r <= h.row; r++ {
		n := h.rows[r%intervals][series]
		no = no && n == 0
		b = append(strconv.AppendUint(b, uint64(n), 10), ',')
	}
	b[len(b)-1] = ']'
	return b, no
}

// remember brings the history up to now.
func (d *daemon) remember() {
	var totals [allSeries]uint64
	for _, c := range d.counters() {
		totals[seriesPackets] += c.Packets.Load()
		totals[seriesSelected] += c.Hits.Load()
	}
	totals[seriesPrinted] = d.printer.lines
	if d.sender != nil {
		totals[seriesSent] = d.sender.Counters.Sent
		for i, x := range d.heldBack() {
			totals[seriesHeldBack+i] = x.n
		}
	}
	d.history.observe(time.Since(d.started), &totals)
}

// historyJSON returns the history as one JSON object in one line: of each series
// the counts of the intervals, the last of which is the one that is under way.
// Series that are zero are left out.
func (d *daemon) historyJSON() []byte {
	d.remember()
	o := object{[]byte{'{'}}
	o.uint("interval", uint64(interval/time.Second))
	o.uint("end", uint64(time.Now().Unix()))
	series := func(i int, name string) {
		before := len(o.b)
		o.name(name)
		var no bool
		if o.b, no = d.history.appendSeries(o.b, i); no {
			o.b = o.b[:before]
		}
	}
	series(seriesPackets, "packets")
	series(seriesSelected, "selected")
	series(seriesPrinted, "printed")
	if d.sender != nil {
		series(seriesSent, "sent")
		o.open("held_back")
		for i, x := range d.heldBack() {
			series(seriesHeldBack+i, x.name)
		}
		o.close()
	}
	o.close()
	return append(o.b, '\n')
}

// recents are the last tracers, without contact and key: the status shows them.
type recents struct {
	ring [16]tracer.Tracer
	n    int
}

func (r *recents) add(t *tracer.Tracer) {
	r.ring[r.n%len(r.ring)] = tracer.Tracer{Flow: t.Flow, Time: t.Time, Selected: t.Selected, To: t.To}
	r.n++
}

// array writes them, the newest first.
func (r *recents) array(o *object) {
	o.b = append(o.b, '[')
	for i := range min(r.n, len(r.ring)) {
		t := &r.ring[(r.n-1-i)%len(r.ring)]
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, '{')
		o.uint("time", uint64(t.Time/1000))
		o.text("saddr", t.Flow.SrcAddr().String())
		o.text("daddr", t.Flow.DstAddr().String())
		o.uint("protocol", uint64(t.Flow.Protocol))
		if t.Flow.Known&flow.HasPorts != 0 {
			o.uint("sport", uint64(t.Flow.SrcPort))
			o.uint("dport", uint64(t.Flow.DstPort))
		}
		if t.Flow.Known&flow.HasPackets != 0 {
			o.uint("pcount", t.Flow.Packets)
		}
		if t.Flow.Known&flow.HasBytes != 0 {
			o.uint("bcount", t.Flow.Bytes)
		}
		o.uint("selected", t.Selected)
		if t.To.IsValid() {
			o.text("to", t.To.String())
		}
		o.close()
	}
	o.b = append(o.b, ']')
}
