// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/routing"
)

// An Answer to whether a source address is forged.
type Answer uint8

const (
	Unknown Answer = iota
	No             // the source is vouched for
	Yes
	Answers
)

var answers = [Answers]string{"unknown", "no", "yes"}

// String returns the tracer's "spoofed".
func (a Answer) String() string { return answers[a] }

// A Verdict about the source of a flow.
type Verdict struct {
	Spoofed Answer
	Method  string // how it was found: see SPEC.md of the tracer; "" if it was not
	Point   Role   // of the interface where the packets came in, or went out
}

// Reason returns the reason for suspicion that a Yes is.
func (v *Verdict) Reason() Reasons {
	switch {
	case v.Spoofed != Yes:
		return 0
	case v.Method == bySpecial:
		return Special
	}
	return Spoofed
}

// Ways to find a verdict.
const (
	byPrefix  = "prefix"  // the prefixes of the interface
	byOwn     = "own"     // the router's own addresses
	bySpecial = "special" // the registries of special-purpose addresses
	byRoute   = "route"   // the kernel's routes
)

// Guards of the interfaces of this system, by their numbers.
type Guards map[uint32]*Guard

// Origins knows from where sources can come. Refresh and Judge belong to one
// goroutine; Guards may be read by others.
//
// What it says with No is an attestation: the source is one of the prefixes that
// the interface serves, or of the router's own addresses on its way out. A change of
// the kernel's tables is taken into account before each verdict.
type Origins struct {
	o       OriginOptions
	conn    *routing.Conn // nil: nothing is known of addresses and routes
	guards  atomic.Pointer[Guards]
	sites   map[uint32]*site // of the interfaces that have a role
	own     map[netip.Addr]bool
	places  map[at]bool // our own addresses, each as a prefix, at interfaces
	stale   bool
	tried   time.Time
	took    time.Duration
	asked   time.Time       // when LocalSources was
	local   bool            // and what it said
	inside  map[uint32]bool // interfaces whose addresses are ours
	former  map[at]time.Time
	crowded bool // there were more prefixes than are kept
	failure error
}

// OriginOptions are what is configured.
type OriginOptions struct {
	// Interfaces of this system, by their names, that have a role.
	Interfaces map[string]Role
	// Index returns the number of an interface; false if there is none now.
	Index func(name string) (uint32, bool)
	// Special are addresses of no network on the Internet.
	Special *prefix.Set
	// Exporters' interfaces.
	Exporters []ExporterInterface
	// Strict tells whether the kernel takes on an interface only packets whose
	// source is reached through it, and LocalSources whether it takes, on any
	// interface, packets that claim to be from itself. nil: it does not, it does.
	Strict       func(name string) bool
	LocalSources func() bool
}

// site is what is known of one interface.
type site struct {
	name   string
	role   Role
	guard  *Guard
	served *prefix.Set    // LAN
	old    *prefix.Set    // LAN: was served not long ago
	list   []netip.Prefix // LAN: served
	all    bool           // LAN: a default route leads there
}

// at is a prefix of an interface.
type at struct {
	prefix netip.Prefix
	index  uint32
}

const (
	// remembered is how long a host may go on to use an address of a prefix that is
	// no longer there: 2 hours is what RFC 4862, section 5.5.3, leaves of a
	// lifetime. Such a source is neither vouched for nor spoofed.
	remembered = 2 * time.Hour
	// maxPrefixes are kept of all interfaces. Those beyond are looked up.
	maxPrefixes = 4096
	// refreshing bounds the share of the time that reading the kernel's tables takes:
	// there are so many times as long between two of them. Meanwhile nothing is known.
	refreshing = 10
)

// NewOrigins returns what is known by configuration only, if conn is nil.
func NewOrigins(o OriginOptions, conn *routing.Conn) *Origins {
	x := &Origins{o: o, conn: conn, stale: true, former: map[at]time.Time{}}
	x.guards.Store(&Guards{})
	return x
}

// Guards returns those of now. The pointer changes when they do.
func (x *Origins) Guards() *Guards { return x.guards.Load() }

// Failure returns why addresses and routes could not be read the last time, or nil.
func (x *Origins) Failure() error { return x.failure }

// Refresh takes changes into account. It is to be called about once a second.
func (x *Origins) Refresh() {
	if x.conn == nil {
		return
	}
	if x.conn.Changed(x.concerns) {
		x.stale = true
	}
	if !x.stale || time.Since(x.tried) < refreshing*x.took {
		return
	}
	began := time.Now()
	if x.failure = x.read(); x.failure == nil {
		x.stale = false
	}
	x.tried = time.Now()
	x.took = x.tried.Sub(began)
}

// concerns tells whether a route that came or went may change a verdict: routes to
// the Internet do not, and there may be many.
func (x *Origins) concerns(r *routing.Route) bool {
	if r.Table == localTable {
		return false // the address itself is heard of
	}
	if r.Default() || r.Kind != routing.Unicast {
		return true
	}
	if s := x.sites[r.Index]; s != nil {
		return s.role == LAN || !x.internet(r)
	}
	return x.inside[r.Index]
}

// internet tells whether a route leads through a router to addresses of the
// Internet.
func (x *Origins) internet(r *routing.Route) bool {
	return r.Gateway && !x.o.Special.Contains(keyOf(r.Prefix.Addr()))
}

const localTable = 255

// none is the special "this host" and the links of an interface: sources that no
// router forwards, and that prove nothing.
var none = [...]string{"0.0.0.0/32", "169.254.0.0/16", "::/128", "fe80::/10"}

// read reads the kernel's tables and makes the guards of them.
func (x *Origins) read() error {
	sites := map[uint32]*site{}
	for name, role := range x.o.Interfaces {
		if i, ok := x.o.Index(name); ok {
			sites[i] = &site{name: name, role: role}
		}
	}
	own, places := map[netip.Addr]bool{}, map[at]bool{}
	err := x.conn.Addresses(func(a *routing.Address) {
		own[a.Prefix.Addr()] = true
		places[at{single(a.Prefix.Addr()), a.Index}] = true
	})
	if err != nil {
		return err
	}
	// The default routes tell which interfaces lead to the Internet.
	upstream := map[uint32]bool{}
	for i, s := range sites {
		upstream[i] = s.role == WAN
	}
	routes := map[at]bool{}
	var delegated []netip.Prefix
	x.crowded = false
	err = x.conn.Routes(func(r *routing.Route) {
		switch {
		case r.Table == localTable:
		case r.Kind == routing.Unreachable && r.Prefix.Addr().Is6() && !r.Default():
			if len(delegated) < maxPrefixes {
				delegated = append(delegated, r.Prefix)
			}
		case r.Kind != routing.Unicast:
		case r.Default():
			if s := sites[r.Index]; s != nil && s.role == LAN {
				s.all = true
			}
			upstream[r.Index] = true
		case sites[r.Index] == nil && r.Gateway:
			// It may lead to the Internet, whatever it is called.
			upstream[r.Index] = upstream[r.Index] || x.internet(r)
		case r.Index == 0 || r.Source || r.Table != routing.MainTable || r.Prefix.Addr().IsMulticast() || r.Prefix.Addr().IsLinkLocalUnicast():
		// Those of a WAN through a router are the Internet's. On the link are its
		// neighbours, who may have addresses of no network on the Internet.
		case sites[r.Index] != nil && sites[r.Index].role == WAN && x.internet(r):
		case len(routes) >= maxPrefixes:
			x.crowded = true
		default:
			routes[at{r.Prefix.Masked(), r.Index}] = true
		}
	})
	if err != nil {
		return err
	}
	x.own, x.places = own, places
	x.build(sites, upstream, routes, delegated)
	return nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func keyOf(a netip.Addr) (flow.Family, *[16]byte) {
	var b [16]byte
	copy(b[:], a.AsSlice())
	if a.Is4() {
		return flow.IPv4, &b
	}
	return flow.IPv6, &b
}

// build makes the guards.
func (x *Origins) build(sites map[uint32]*site, upstream map[uint32]bool, routes map[at]bool, delegated []netip.Prefix) {
	now := time.Now()
	var neutral, ownSet, ours prefix.Builder
	for _, text := range none {
		neutral.Add(netip.MustParsePrefix(text))
	}
	free := neutral.Set()
	for a := range x.own {
		ownSet.Add(single(a))
	}
	mine := ownSet.Set()
	inside := map[uint32]bool{}
	for r := range routes {
		if s := sites[r.index]; s != nil && s.role == LAN || s == nil && !upstream[r.index] {
			inside[r.index] = true
			ours.Add(r.prefix)
			// A prefix that was delegated to us is ours as a whole, if a part of it is
			// in use. Otherwise an unreachable route is only one that somebody set.
			for _, d := range delegated {
				if d.Contains(r.prefix.Addr()) && d.Bits() <= r.prefix.Bits() {
					ours.Add(d)
				}
			}
		}
	}
	ours.AddSet(mine)
	all := ours.Set()
	guards := make(Guards, len(sites))
	for i, s := range sites {
		var served, near prefix.Builder
		for r := range routes {
			if r.index == i {
				near.Add(r.prefix)
				if s.role == LAN {
					s.list = append(s.list, r.prefix)
					served.Add(r.prefix)
					delete(x.former, r)
				}
			}
		}
		if s.role == WAN {
			s.guard = &Guard{ours: all.Minus(free), special: x.o.Special.Minus(near.Set()).Minus(free).Sieved()}
			guards[i] = s.guard
			continue
		}
		s.served = served.Set()
		if last := x.sites[i]; last != nil && last.role == LAN {
			for _, p := range last.list {
				if f := (at{p, i}); !routes[f] && len(x.former) < maxPrefixes {
					x.former[f] = now.Add(remembered)
				}
			}
		}
		var old, allowed prefix.Builder
		for f, end := range x.former {
			if now.After(end) {
				delete(x.former, f)
			} else if f.index == i {
				old.Add(f.prefix)
			}
		}
		s.old = old.Set()
		allowed.AddSet(s.served)
		allowed.AddSet(s.old)
		allowed = builderOf(allowed.Set().Minus(mine), free)
		s.guard = &Guard{lan: true, allowed: allowed.Set(), serves4: s.served.Has(flow.IPv4) && !s.all && !x.crowded,
			serves6: s.served.Has(flow.IPv6) && !s.all && !x.crowded}
		guards[i] = s.guard
	}
	x.sites, x.inside = sites, inside
	x.guards.Store(&guards)
}

func builderOf(sets ...*prefix.Set) (b prefix.Builder) {
	for _, s := range sets {
		b.AddSet(s)
	}
	return b
}

// Judge tells whether the source of a record is forged, by where its packets came
// in. It is to be asked before a translation replaces private ends.
func (x *Origins) Judge(r *flow.Record, exporter netip.Addr) Verdict {
	switch r.Source.Protocol {
	case flow.Capture:
		x.Refresh()
		if x.conn == nil || x.failure != nil || x.stale {
			break
		}
		if r.Known&flow.HasIngress != 0 {
			return x.entering(r)
		}
		if r.Known&flow.HasEgress != 0 {
			return x.leaving(r)
		}
	case flow.Conntrack:
		x.Refresh()
		if x.conn != nil && x.failure == nil && !x.stale {
			return x.translated(r)
		}
	default:
		return x.exported(r, exporter)
	}
	return Verdict{}
}

// entering is about a packet that came in at an interface.
func (x *Origins) entering(r *flow.Record) Verdict {
	s := x.sites[r.Ingress]
	if s == nil {
		return Verdict{}
	}
	v := Verdict{Point: s.role}
	if r.Known&flow.HasVLAN != 0 {
		return v // it is of another network that comes over this interface
	}
	src := r.SrcAddr()
	if x.own[src] && !src.IsLinkLocalUnicast() {
		v.Spoofed, v.Method = Yes, byOwn // we did not send it
		return v
	}
	if s.role == LAN {
		v.Spoofed, v.Method = x.fromLAN(s, r.Ingress, r)
	} else {
		v.Spoofed, v.Method = x.fromWAN(s, r.Ingress, r)
	}
	return v
}

func (x *Origins) fromLAN(s *site, index uint32, r *flow.Record) (Answer, string) {
	src := r.SrcAddr()
	switch {
	case s.served.Contains(r.Family, &r.Src) && !src.IsLinkLocalUnicast():
		return No, byPrefix
	case s.old.Contains(r.Family, &r.Src), s.all, !s.served.Has(r.Family), unforwarded(src):
		return Unknown, ""
	}
	route, err := x.conn.Lookup(src)
	switch {
	case errors.Is(err, routing.ErrNone):
		return Yes, byPrefix
	case err != nil, route.Kind == routing.Unicast && route.Index == 0:
		return Unknown, ""
	case route.Kind == routing.Unicast && route.Index == index && !route.Default():
		return No, byRoute
	}
	return Yes, byPrefix
}

// unforwarded tells whether an address is one that no router forwards a packet of.
func unforwarded(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsUnspecified() }

func (x *Origins) fromWAN(s *site, index uint32, r *flow.Record) (Answer, string) {
	src, dst := r.SrcAddr(), r.DstAddr()
	switch s.guard.check(&r.Key) {
	case Spoofed:
		return Yes, byPrefix
	case Special:
		return Yes, bySpecial
	}
	if !src.Is4() || unforwarded(src) || x.o.Strict == nil || !x.o.Strict(s.name) {
		return Unknown, ""
	}
	// Strict source validation is the owner's word that routes are the same both
	// ways here. A route that says nothing, as the default, proves nothing.
	route, err := x.conn.Lookup(src)
	if err != nil || route.Kind != routing.Unicast || route.Default() || route.Index == 0 || route.Index == index {
		return Unknown, ""
	}
	if accepts, err := x.conn.Accepts(src, dst, index); err != nil || accepts {
		return Unknown, ""
	}
	return Yes, byRoute
}

// leaving is about a packet that went out at an interface. That it bears the
// interface's own address means that we made it, or have put our address into it:
// the kernel takes no packet of IPv4 that claims to be from itself.
func (x *Origins) leaving(r *flow.Record) Verdict {
	s := x.sites[r.Egress]
	if s == nil {
		return Verdict{}
	}
	v := Verdict{Point: s.role}
	if x.places[at{single(r.SrcAddr()), r.Egress}] && x.only(r) {
		v.Spoofed, v.Method = No, byOwn
	}
	return v
}

// only tells whether nobody else can send with our own address through us.
func (x *Origins) only(r *flow.Record) bool {
	if r.Family != flow.IPv4 || x.o.LocalSources == nil {
		return false
	}
	if now := time.Now(); now.Sub(x.asked) >= time.Second { // it reads a file of each interface
		x.asked, x.local = now, x.o.LocalSources()
	}
	return !x.local
}

// translated is about a connection whose source was replaced by our own address.
func (x *Origins) translated(r *flow.Record) (v Verdict) {
	if r.Known&flow.HasTranslatedSrc != 0 && r.TranslatedSrc != r.Src && x.only(r) &&
		x.own[netip.AddrFrom4([4]byte(r.TranslatedSrc[:4]))] {
		v.Spoofed, v.Method = No, byOwn
	}
	return v
}
