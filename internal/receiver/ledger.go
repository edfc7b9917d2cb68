// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// A Level is how much standing a key has. It says that somebody has said the same
// for long; not that it is true.
type Level uint8

const (
	NewKey Level = iota // or one that was in a conflict of late
	// Consistent: 10 tracers or more on 3 days or more, over 48 hours or more,
	// without a conflict since.
	Consistent
	// Corroborated: consistent, and several of its flows were seen by ourselves.
	Corroborated
	// Pinned by the owner.
	Pinned
)

var levelNames = [...]string{"new", "consistent", "corroborated", "pinned"}

func (l Level) String() string { return levelNames[l] }

const (
	consistentCount = 10
	consistentDays  = 3
	consistentSpan  = int64(48 * time.Hour / time.Millisecond)
	corroborations  = 3
	day             = int64(24 * time.Hour / time.Millisecond)
	// forgotten is how long a key with standing keeps its place when there is
	// none for another.
	forgotten = 30 * day
)

// maxPaths is how many pairs of network and distance an entry holds.
const maxPaths = 4

// A Path is from where and how far away a key's tracers came.
type Path struct {
	Network netip.Prefix
	Hops    int16 // -1: not known
	Last    int64 // ms since the Unix epoch
}

// An Entry is what is known of one key. Times are in ms since the Unix epoch, of
// our clock.
type Entry struct {
	Key         tracer.PublicKey
	First, Last int64
	Count       uint64
	Steady      int64  // since when there was no conflict
	Days        uint64 // on which it was heard of since then
	Networks    uint64 // how often it came from a network that was not in Paths
	Pinned      bool
	Seen        uint64 // of its flows, we have seen so many ourselves
	Foreign     uint64 // of its flows, so many named us as a source that we were not
	Conflicts   uint64 // changed contacts, two successors, use after succession
	Contact     tracer.Contact
	Predecessor tracer.PublicKey // that endorsed it; zero if none
	Successor   tracer.PublicKey // that it endorsed; zero if none
	Succeeded   int64            // since when
	Paths       []Path

	standing   bool   // is in Ledger.standing, not in Ledger.fresh
	gone       bool   // is in neither
	index      int    // there
	floor      int64  // see replayFilter
	home, away bucket // of signatures to verify
}

// Level returns the entry's level.
func (e *Entry) Level() Level {
	switch {
	case e.Pinned:
		return Pinned
	case e.Count < consistentCount || e.Days < consistentDays || e.Last-e.Steady < consistentSpan:
		return NewKey
	case e.Seen >= corroborations:
		return Corroborated
	}
	return Consistent
}

// A Ledger holds what is known of keys, in bounded memory. It is not safe for
// concurrent use: who has a Receiver asks it.
//
// Keys without standing never take the place of one that has it. Among
// themselves, of 8 at random the one goes that was heard of least often, and of
// those the one that was not heard of for the longest time: a million keys that
// are used once each displace one another.
type Ledger struct {
	entries  map[tracer.PublicKey]*Entry
	fresh    []*Entry
	standing []*Entry
	most     int // of each
	random   *rand.Rand
	lost     int64 // the floor of keys that are not here: see replayFilter
	Evicted  uint64
	Changed  uint64 // counts changes
	saved    uint64 // Changed, as it was written to a file
}

// NewLedger returns one for that many keys with standing and as many without.
func NewLedger(most int) *Ledger {
	return &Ledger{
		entries: make(map[tracer.PublicKey]*Entry), most: max(most, 8),
		random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// Find returns the entry of a key, nil if there is none.
func (l *Ledger) Find(key tracer.PublicKey) *Entry { return l.entries[key] }

// Len returns the number of keys with standing and without.
func (l *Ledger) Len() (standing, fresh int) { return len(l.standing), len(l.fresh) }

// All calls f with each entry, in no order.
func (l *Ledger) All(f func(*Entry)) {
	for _, list := range [][]*Entry{l.standing, l.fresh} {
		for _, e := range list {
			f(e)
		}
	}
}

// Pin pins a key, or no longer. It may be one that nobody has heard of.
func (l *Ledger) Pin(key tracer.PublicKey, pinned bool, now int64) {
	e := l.entries[key]
	if e == nil {
		if !pinned {
			return
		}
		e = l.add(key, now)
	}
	e.Pinned = pinned
	l.Changed++
	l.promote(e, now)
}

// add makes an entry without standing.
func (l *Ledger) add(key tracer.PublicKey, now int64) *Entry {
	e := &Entry{Key: key, First: now, Last: now, Steady: now, floor: l.lost}
	l.entries[key] = e
	if len(l.fresh) < l.most {
		e.index = len(l.fresh)
		l.fresh = append(l.fresh, e)
		return e
	}
	victim := l.fresh[l.random.IntN(l.most)]
	for range 7 {
		x := l.fresh[l.random.IntN(l.most)]
		if x.Count < victim.Count || x.Count == victim.Count && x.Last < victim.Last {
			victim = x
		}
	}
	l.drop(victim)
	e.index = victim.index
	l.fresh[e.index] = e
	return e
}

func (l *Ledger) drop(e *Entry) {
	delete(l.entries, e.Key)
	e.gone = true
	l.lost = max(l.lost, e.floor)
	e.Contact, e.Paths = tracer.Contact{}, nil // what replayFilter holds of it is small
	l.Evicted++
}

// promote moves an entry to those with standing, if it has earned that and there
// is room.
func (l *Ledger) promote(e *Entry, now int64) {
	if e.standing || e.Level() == NewKey {
		return
	}
	if len(l.standing) == l.most {
		var victim *Entry
		for range 16 {
			x := l.standing[l.random.IntN(l.most)]
			if !x.Pinned && (victim == nil || x.Last < victim.Last) {
				victim = x
			}
		}
		if victim == nil || !e.Pinned && now-victim.Last < forgotten {
			return
		}
		l.drop(victim)
		l.leave(&l.standing, victim)
	}
	l.leave(&l.fresh, e)
	e.standing, e.index = true, len(l.standing)
	l.standing = append(l.standing, e)
}

// leave takes an entry out of a list.
func (l *Ledger) leave(list *[]*Entry, e *Entry) {
	last := len(*list) - 1
	x := (*list)[last]
	(*list)[e.index], x.index = x, e.index
	(*list)[last] = nil
	*list = (*list)[:last]
}

// Note records a verified tracer that counts, and returns the entry of its key.
func (l *Ledger) Note(key tracer.PublicKey, m *tracer.Message, from netip.Addr, hops int, now int64) *Entry {
	e := l.entries[key]
	if e == nil {
		e = l.add(key, now)
	}
	l.Changed++
	if e.Days == 0 || now/day != e.Last/day && now > e.Last {
		e.Days++
	}
	if e.Count > 0 && m.Contact != e.Contact {
		e.conflict(now)
	}
	e.Contact = m.Contact
	e.Count++
	e.Last = max(e.Last, now)
	if e.Succeeded != 0 && m.Time > e.Succeeded*1000+day {
		e.conflict(now)
	}
	if m.Succeeds != nil {
		l.succeed(e, m.Succeeds, now)
	}
	if from.IsValid() {
		e.path(networkOf(from), hops, now)
	}
	l.promote(e, now)
	return e
}

// conflict takes the standing of an entry away for days.
func (e *Entry) conflict(now int64) {
	e.Conflicts++
	e.Steady, e.Days = now, 1
}

// succeed credits a key with what is known of the one that endorsed it.
func (l *Ledger) succeed(e *Entry, word *tracer.Endorsement, now int64) {
	if e.Predecessor == word.Old {
		return
	}
	old := l.entries[word.Old]
	if e.Predecessor != (tracer.PublicKey{}) { // two words for one key
		e.conflict(now)
		return
	}
	e.Predecessor = word.Old
	if old == nil || old == e {
		return
	}
	if old.Successor != (tracer.PublicKey{}) && old.Successor != e.Key { // whoever holds the old key, it is not one
		old.conflict(now)
		e.conflict(now)
		return
	}
	old.Successor, old.Succeeded = e.Key, word.Since
	e.First, e.Count = min(e.First, old.First), e.Count+old.Count
	e.Steady, e.Days, e.Seen = min(e.Steady, old.Steady), e.Days+old.Days, e.Seen+old.Seen
	e.Conflicts += old.Conflicts
	e.Pinned = e.Pinned || old.Pinned
}

// path notes from where a tracer came.
func (e *Entry) path(network netip.Prefix, hops int, now int64) {
	oldest, known := 0, false
	for i := range e.Paths {
		p := &e.Paths[i]
		if p.Network == network {
			known = true
			if int(p.Hops) == hops {
				p.Last = now
				return
			}
		}
		if p.Last < e.Paths[oldest].Last {
			oldest = i
		}
	}
	if !known {
		e.Networks++
	}
	if len(e.Paths) < maxPaths {
		e.Paths = append(e.Paths, Path{network, int16(hops), now})
		return
	}
	e.Paths[oldest] = Path{network, int16(hops), now}
}

// athome tells whether the entry's tracers came from there before.
func (e *Entry) athome(network netip.Prefix, hops int) bool {
	for i := range e.Paths {
		if e.Paths[i].Network == network && int(e.Paths[i].Hops) == hops {
			return true
		}
	}
	return false
}

// ParseLevel reads a level as String writes it.
func ParseLevel(text string) (Level, bool) {
	for l, name := range levelNames {
		if name == text {
			return Level(l), true
		}
	}
	return 0, false
}
