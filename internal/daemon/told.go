// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"math"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
)

// told are the last tracers of others: the status shows them.
type told struct {
	ring [16]telling
	n    int
}

// A telling is what the status says of a tracer of others.
type telling struct {
	at       time.Time
	key      flow.Key
	hasPorts bool
	packets  uint64 // estimated; 0: not told
	by, sign string // names, and the beginning of the key
	trust    receiver.Level
	hops     int    // -1: not known
	spoofed  string // as it says
	witness  witness
	stale    bool
}

func (l *told) add(t *receiver.Received, w witness) {
	x := &l.ring[l.n%len(l.ring)]
	l.n++
	*x = telling{at: t.Arrived, key: t.Flow.Key, hasPorts: t.Flow.Known&flow.HasPorts != 0, by: names(t), sign: t.Signed.Key.String()[:16],
		trust: t.Level, hops: t.Hops, spoofed: printable(t.Spoofed), witness: w, stale: t.Stale}
	if t.Rate > 0 {
		x.packets = uint64(min(math.Round(float64(t.Selected)/t.Rate), 1<<53))
	}
}

// array writes them, the newest first.
func (l *told) array(o *object) {
	o.b = append(o.b, '[')
	for i := range min(l.n, len(l.ring)) {
		t := &l.ring[(l.n-1-i)%len(l.ring)]
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(o.b, '{')
		o.uint("time", uint64(t.at.Unix()))
		o.text("saddr", t.key.SrcAddr().String())
		o.text("daddr", t.key.DstAddr().String())
		o.uint("protocol", uint64(t.key.Protocol))
		if t.hasPorts {
			o.uint("sport", uint64(t.key.SrcPort))
			o.uint("dport", uint64(t.key.DstPort))
		}
		if t.packets != 0 {
			o.uint("packets", t.packets)
		}
		o.text("by", t.by)
		o.text("key", t.sign)
		o.text("trust", t.trust.String())
		if t.hops >= 0 {
			o.uint("hops", uint64(t.hops))
		}
		if t.spoofed != "" {
			o.text("spoofed", t.spoofed)
		}
		o.text("witness", [...]string{unknown: "unknown", ours: "seen", notOurs: "not_ours"}[t.witness])
		if t.stale {
			o.text("stale", "yes")
		}
		o.close()
	}
	o.b = append(o.b, ']')
}
