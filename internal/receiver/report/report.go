// SPDX-License-Identifier: BSD-3-Clause

// Package report answers what a victim asks: who carried this, is it spoofed, whom
// do I call? It is made of verified tracers; what they say is what their senders
// say, and is shown with the standing of their keys.
package report

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

// A Report is about the addresses of one recipient and a span of time.
type Report struct {
	To      []string  `json:"to"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Tracers int       `json:"tracers"` // that count
	Stale   int       `json:"stale"`   // that do not
	Keys    int       `json:"keys"`
	// Attacks are flows to us, those of most packets first, and InOurName flows
	// with us as their source, in the same order.
	Attacks   []*Attack `json:"attacks"`
	InOurName []*Attack `json:"in_our_name"`
	// Omitted attacks had fewer packets than those above.
	Omitted int `json:"omitted,omitempty"`
}

// most is how many attacks of a kind are shown.
const most = 100

// An Attack is all that was told of one destination, protocol and port.
type Attack struct {
	Destination netip.Addr `json:"destination"`
	Protocol    uint8      `json:"protocol"`
	Port        *uint16    `json:"port,omitempty"` // nil: the protocol has none, or many
	Ports       int        `json:"ports"`          // how many there are
	// Victim is the source in whose name it is, of an attack in our name.
	Victim *netip.Addr `json:"source,omitempty"`
	First  time.Time   `json:"first"`
	Last   time.Time   `json:"last"`
	// AtLeast is the estimate of the carrier that saw most, of those with standing
	// if there are any, and AtMost the sum over all carriers, which may have seen
	// the same packets.
	AtLeast  Estimate   `json:"at_least"`
	AtMost   Estimate   `json:"at_most"`
	Standing bool       `json:"standing"` // a key with standing is among the carriers
	Spoofed  Verdicts   `json:"spoofed"`  // by carriers
	Sources  []Source   `json:"sources"`  // the most frequent ones
	More     int        `json:"more_sources,omitempty"`
	Carriers []*Carrier `json:"carriers"` // in path order, nearest last
}

// An Estimate is of packets that passed, from k selected ones.
type Estimate struct {
	Packets float64 `json:"packets"`
	Bytes   float64 `json:"bytes"`
	Percent float64 `json:"percent"` // the error in 95 % of the cases: 196/sqrt(k) if the tracers name one flow, more if some was held back of several
}

// Verdicts count who says that sources are forged.
type Verdicts struct {
	Yes     int `json:"yes"`
	No      int `json:"no"`
	Unknown int `json:"unknown"`
}

// String is the verdict in a word.
func (v Verdicts) String() string {
	switch {
	case v.Yes > 0 && v.No > 0:
		return "disputed"
	case v.Yes > 0:
		return "yes"
	case v.No > 0:
		return "no"
	}
	return "not told"
}

// A Source is a source address and how many tracers name it.
type Source struct {
	Address netip.Addr `json:"address"`
	Tracers int        `json:"tracers"`
}

// A Carrier is a key that told of an attack.
type Carrier struct {
	Key     string  `json:"key"`
	Trust   string  `json:"trust"`
	Contact Contact `json:"contact"`
	// Shared: another key with more standing claims the same email or number.
	Shared bool `json:"contact_claimed_by_another,omitempty"`
	// Hops from it to us: the least and the largest seen, nil if nobody knows.
	// Nobody can make the least one smaller than it is.
	Hops    *int         `json:"hops,omitempty"`
	MaxHops *int         `json:"max_hops,omitempty"`
	From    []netip.Addr `json:"from"` // who delivered them, four at most
	Tracers int          `json:"tracers"`
	Estimate
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Verdicts Verdicts  `json:"verdicts"` // of its tracers
	Methods  []string  `json:"methods,omitempty"`

	level   receiver.Level
	example *receiver.Received
	sources map[netip.Addr]int
}

// Builder collects tracers. Attacks of which there are more than it can hold are
// counted only.
type Builder struct {
	// Level returns what is known of a key now, and ok if anything is.
	Level func(tracer.PublicKey) (receiver.Level, bool)

	report  Report
	mine    func(netip.Addr) bool
	attacks map[attackKey]*building
	flows   map[targetKey]map[uint16]bool
	totals  map[totalKey]*total
	keys    map[tracer.PublicKey]bool
}

type attackKey struct {
	target targetKey
	port   uint16
	has    bool
}

type targetKey struct {
	destination netip.Addr
	protocol    uint8
	source      netip.Addr // of what is in our name; the zero Addr otherwise
}

// A total is of one key, recipient and end: what it selected, and what of that it
// attributes to the flows that it names.
type totalKey struct {
	key    tracer.PublicKey
	to     netip.Addr
	source bool
}

type total struct {
	selected, direct float64 // weights
	k, named         float64 // counts of the same
}

type building struct {
	carriers map[tracer.PublicKey]*carrying
	sources  map[netip.Addr]int
	more     int
}

// carrying is a Carrier with the weights that are scaled in the end.
type carrying struct {
	Carrier
	parts map[totalKey]*part
}

type part struct {
	packets, bytes, selected float64
	k, named                 float64 // of the tracers' packets, those of the flows that they name
}

// variance returns the relative one of a part of a total: that of how many were
// selected, and, when there are other flows, that of which of them the limits let
// be named, as a share's.
func (p *part) variance(t *total) float64 {
	if t.named == 0 || p.named == 0 {
		return 1 / max(p.k, 1)
	}
	return 1/max(t.k, 1) + 1/p.named - 1/t.named
}

const (
	maxAttacks  = 20_000
	maxSources  = 10_000 // of one attack
	maxCarriers = 4096   // likewise
	manyPorts   = 20     // of one target are shown as one attack
)

// NewBuilder returns a builder of a report about the addresses that mine tells,
// which are named so.
func NewBuilder(mine func(netip.Addr) bool, names []string, since, until time.Time) *Builder {
	return &Builder{
		Level:  func(tracer.PublicKey) (receiver.Level, bool) { return 0, false },
		report: Report{To: names, Since: since.UTC(), Until: until.UTC(), Attacks: []*Attack{}, InOurName: []*Attack{}},
		mine:   mine, attacks: map[attackKey]*building{}, flows: map[targetKey]map[uint16]bool{},
		totals: map[totalKey]*total{}, keys: map[tracer.PublicKey]bool{},
	}
}

// Add adds a tracer, if it is about these addresses and of this time.
func (b *Builder) Add(x *receiver.Received) {
	if !b.mine(x.To) || x.Arrived.Before(b.report.Since) || x.Arrived.After(b.report.Until) {
		return
	}
	if x.Stale || !(x.Rate > 0) || x.Selected == 0 {
		b.report.Stale++
		return
	}
	b.report.Tracers++
	b.keys[x.Signed.Key] = true
	f := &x.Flow
	k := attackKey{target: targetKey{destination: f.DstAddr(), protocol: f.Protocol}, has: f.Known&flow.HasPorts != 0}
	if k.has {
		k.port = f.DstPort
	}
	tk := totalKey{x.Signed.Key, x.To, x.To == f.SrcAddr()}
	if tk.source {
		k.target.source = x.To
	}
	t := b.totals[tk]
	if t == nil {
		t = &total{}
		b.totals[tk] = t
	}
	t.selected += weight(x.Selected, x.Rate)
	t.direct += weight(x.Selected-x.Held, x.Rate)
	t.k += float64(x.Selected)
	t.named += float64(x.Selected - x.Held)
	a := b.attacks[k]
	if a == nil {
		if len(b.attacks) >= maxAttacks {
			b.report.Omitted++
			return
		}
		a = &building{carriers: map[tracer.PublicKey]*carrying{}, sources: map[netip.Addr]int{}}
		b.attacks[k] = a
	}
	if n := a.sources[f.SrcAddr()]; n > 0 || len(a.sources) < maxSources {
		a.sources[f.SrcAddr()] = n + 1
	} else {
		a.more++
	}
	c := a.carriers[x.Signed.Key]
	if c == nil {
		if len(a.carriers) >= maxCarriers {
			return
		}
		c = &carrying{parts: map[totalKey]*part{}}
		c.sources = map[netip.Addr]int{}
		c.Key, c.First, c.level = x.Signed.Key.String(), x.Arrived, x.Level
		a.carriers[x.Signed.Key] = c
	}
	c.add(x, tk)
}

// percent returns the error in 95 % of the cases of a sum whose variance is told:
// 196/sqrt(k) for k packets of one flow.
func percent(variance, sum float64) float64 {
	if !(sum > 0) {
		return 196
	}
	return 196 * math.Sqrt(variance) / sum
}

// weight is how many packets so many selected ones stand for: what is above 1e15
// is a lie, and would be no number soon.
func weight(selected uint64, rate float64) float64 { return min(float64(selected)/rate, 1e15) }

func (c *carrying) add(x *receiver.Received, tk totalKey) {
	c.Tracers++
	p := c.parts[tk]
	if p == nil {
		p = &part{}
		c.parts[tk] = p
	}
	size := 0.0
	if f := &x.Flow; f.Known&flow.HasPackets != 0 && f.Known&flow.HasBytes != 0 && f.Packets > 0 {
		size = float64(f.Bytes) / float64(f.Packets)
	}
	p.packets += weight(x.Selected-x.Held, x.Rate)
	p.bytes += weight(x.Selected-x.Held, x.Rate) * min(size, 1<<16)
	p.selected += weight(x.Selected, x.Rate)
	p.k += float64(x.Selected)
	p.named += float64(x.Selected - x.Held)
	if x.Hops >= 0 {
		if c.Hops == nil {
			c.Hops, c.MaxHops = new(int), new(int)
			*c.Hops, *c.MaxHops = x.Hops, x.Hops
		}
		*c.Hops, *c.MaxHops = min(*c.Hops, x.Hops), max(*c.MaxHops, x.Hops)
	}
	if x.From.IsValid() && len(c.From) < 4 && !slices.Contains(c.From, x.From) {
		c.From = append(c.From, x.From)
	}
	switch x.Spoofed {
	case "yes":
		c.Verdicts.Yes++
	case "no":
		c.Verdicts.No++
	default:
		c.Verdicts.Unknown++
	}
	if m := Clean(x.Method, 40); m != "" && len(c.Methods) < 4 && !slices.Contains(c.Methods, m) {
		c.Methods = append(c.Methods, m)
	}
	if n := c.sources[x.Flow.SrcAddr()]; n > 0 || len(c.sources) < 1000 {
		c.sources[x.Flow.SrcAddr()] = n + 1
	}
	if c.First.After(x.Arrived) {
		c.First = x.Arrived
	}
	if !c.Last.After(x.Arrived) {
		c.Last, c.level = x.Arrived, x.Level
		c.Contact, c.example = ContactOf(&x.Contact), x
	}
}

// merge adds what another attack of the same key has.
func (c *carrying) merge(o *carrying) {
	if o.Last.After(c.Last) {
		c.Last, c.level, c.Contact, c.example = o.Last, o.level, o.Contact, o.example
	}
	if o.First.Before(c.First) {
		c.First = o.First
	}
	c.Tracers += o.Tracers
	for tk, p := range o.parts {
		if q := c.parts[tk]; q != nil {
			q.packets, q.bytes, q.selected = q.packets+p.packets, q.bytes+p.bytes, q.selected+p.selected
			q.k, q.named = q.k+p.k, q.named+p.named
		} else {
			c.parts[tk] = p
		}
	}
	if o.Hops != nil {
		if c.Hops == nil {
			c.Hops, c.MaxHops = o.Hops, o.MaxHops
		} else {
			*c.Hops, *c.MaxHops = min(*c.Hops, *o.Hops), max(*c.MaxHops, *o.MaxHops)
		}
	}
	for _, a := range o.From {
		if len(c.From) < 4 && !slices.Contains(c.From, a) {
			c.From = append(c.From, a)
		}
	}
	c.Verdicts = Verdicts{c.Verdicts.Yes + o.Verdicts.Yes, c.Verdicts.No + o.Verdicts.No, c.Verdicts.Unknown + o.Verdicts.Unknown}
	for _, m := range o.Methods {
		if len(c.Methods) < 4 && !slices.Contains(c.Methods, m) {
			c.Methods = append(c.Methods, m)
		}
	}
	for a, n := range o.sources {
		if len(c.sources) < 1000 || c.sources[a] > 0 {
			c.sources[a] += n
		}
	}
}

// Report returns the report. The builder is of no use after that.
func (b *Builder) Report() *Report {
	b.mergePorts()
	for k, a := range b.attacks {
		r := b.attack(k, a)
		if k.target.source.IsValid() {
			source := k.target.source
			r.Victim = &source
			b.report.InOurName = append(b.report.InOurName, r)
		} else {
			b.report.Attacks = append(b.report.Attacks, r)
		}
	}
	for _, list := range []*[]*Attack{&b.report.Attacks, &b.report.InOurName} {
		// Those that somebody with standing tells of come first: others can claim
		// any number.
		slices.SortFunc(*list, func(x, y *Attack) int {
			return cmp.Or(cmp.Compare(yes(y.Standing), yes(x.Standing)), cmp.Compare(y.AtLeast.Packets, x.AtLeast.Packets),
				x.Destination.Compare(y.Destination), cmp.Compare(x.Protocol, y.Protocol), cmp.Compare(portOf(x), portOf(y)))
		})
		if n := len(*list); n > most {
			b.report.Omitted += n - most
			*list = (*list)[:most]
		}
	}
	b.report.Keys = len(b.keys)
	return &b.report
}

func yes(b bool) int {
	if b {
		return 1
	}
	return 0
}

func portOf(a *Attack) int {
	if a.Port == nil {
		return -1
	}
	return int(*a.Port)
}

// mergePorts makes one attack of those on very many ports of one target.
func (b *Builder) mergePorts() {
	for k := range b.attacks {
		if k.has {
			if b.flows[k.target] == nil {
				b.flows[k.target] = map[uint16]bool{}
			}
			b.flows[k.target][k.port] = true
		}
	}
	for target, ports := range b.flows {
		if len(ports) <= manyPorts {
			continue
		}
		all := &building{carriers: map[tracer.PublicKey]*carrying{}, sources: map[netip.Addr]int{}}
		for port := range ports {
			k := attackKey{target, port, true}
			a := b.attacks[k]
			delete(b.attacks, k)
			for s, n := range a.sources {
				if len(all.sources) < maxSources || all.sources[s] > 0 {
					all.sources[s] += n
				} else {
					all.more += n
				}
			}
			for key, c := range a.carriers {
				if have := all.carriers[key]; have != nil {
					have.merge(c)
				} else {
					all.carriers[key] = c
				}
			}
		}
		if old := b.attacks[attackKey{target: target}]; old != nil { // of fragments, which have no ports
			for key, c := range old.carriers {
				if have := all.carriers[key]; have != nil {
					have.merge(c)
				} else {
					all.carriers[key] = c
				}
			}
		}
		b.attacks[attackKey{target: target}] = all
	}
}

func (b *Builder) attack(k attackKey, a *building) *Attack {
	r := &Attack{Destination: k.target.destination, Protocol: k.target.protocol, Carriers: []*Carrier{}}
	if k.has {
		r.Port, r.Ports = &k.port, 1
	} else {
		r.Ports = len(b.flows[k.target])
	}
	for key, c := range a.carriers {
		if l, ok := b.Level(key); ok {
			c.level = l
		}
		c.Trust = c.level.String()
		squares := 0.0
		for tk, p := range c.parts {
			t := b.totals[tk]
			// What was held back is attributed as what was not; if all was, to the
			// flows that stand for it.
			scale, variance := 1.0, p.variance(t)
			switch {
			case t.direct > 0:
				scale = t.selected / t.direct
			default:
				p.packets, p.bytes = p.selected, 0
			}
			c.Packets += p.packets * scale
			c.Bytes += p.bytes * scale
			squares += p.packets * scale * p.packets * scale * variance
		}
		c.Percent = percent(squares, c.Packets)
		if c.level > receiver.NewKey {
			r.Standing = true
		}
		r.Carriers = append(r.Carriers, &c.Carrier)
		switch c.Verdicts.String() {
		case "yes":
			r.Spoofed.Yes++
		case "no":
			r.Spoofed.No++
		case "disputed":
			r.Spoofed.Yes++
			r.Spoofed.No++
		default:
			r.Spoofed.Unknown++
		}
		if r.First.IsZero() || c.First.Before(r.First) {
			r.First = c.First
		}
		if c.Last.After(r.Last) {
			r.Last = c.Last
		}
		c.First, c.Last = c.First.UTC(), c.Last.UTC()
	}
	r.First, r.Last = r.First.UTC(), r.Last.UTC()
	squares := 0.0
	for _, c := range r.Carriers {
		if c.Packets > r.AtLeast.Packets && (c.level > receiver.NewKey || !r.Standing) {
			r.AtLeast = c.Estimate
		}
		if c.level > receiver.NewKey || !r.Standing {
			r.AtMost.Packets += c.Packets
			r.AtMost.Bytes += c.Bytes
			squares += c.Packets * c.Percent / 196 * c.Packets * c.Percent / 196
		}
	}
	r.AtMost.Percent = percent(squares, r.AtMost.Packets)
	shared(r.Carriers)
	inPathOrder(r.Carriers)
	r.Sources, r.More = top(a.sources, 5)
	r.More += a.more
	return r
}

// inPathOrder puts the farthest first and the nearest last, by the hops that their
// tracers took; those of which nobody knows come before.
func inPathOrder(carriers []*Carrier) {
	hops := func(c *Carrier) int {
		if c.Hops == nil {
			return 1000
		}
		return *c.Hops
	}
	slices.SortFunc(carriers, func(x, y *Carrier) int {
		return cmp.Or(cmp.Compare(hops(y), hops(x)), cmp.Compare(y.level, x.level), cmp.Compare(y.Packets, x.Packets), cmp.Compare(x.Key, y.Key))
	})
}

// shared marks those that claim a contact that another with more standing has.
func shared(carriers []*Carrier) {
	best := map[string]receiver.Level{}
	claims := func(c *Carrier) []string {
		var all []string
		if c.Contact.Email != "" {
			all = append(all, strings.ToLower(c.Contact.Email))
		}
		if c.Contact.ASN != 0 {
			all = append(all, fmt.Sprint("AS", c.Contact.ASN))
		}
		return all
	}
	for _, c := range carriers {
		for _, claim := range claims(c) {
			best[claim] = max(best[claim], c.level)
		}
	}
	for _, c := range carriers {
		for _, claim := range claims(c) {
			if best[claim] > c.level && best[claim] > receiver.NewKey {
				c.Shared = true
			}
		}
	}
}

// top returns the most frequent ones, and how many others there are.
func top(count map[netip.Addr]int, n int) ([]Source, int) {
	all := make([]Source, 0, len(count))
	for a, n := range count {
		all = append(all, Source{a, n})
	}
	slices.SortFunc(all, func(x, y Source) int { return cmp.Or(cmp.Compare(y.Tracers, x.Tracers), x.Address.Compare(y.Address)) })
	n = min(n, len(all))
	return all[:n], len(all) - n
}
