// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/overflowd/overflowd/internal/tracer"
)

// says is a message with a contact.
func says(email string) *tracer.Message {
	return &tracer.Message{Tracer: tracer.Tracer{Contact: tracer.Contact{Email: email}}}
}

const noon = 20_000*day + day/2

func TestLevels(t *testing.T) {
	id := public(key(1))
	note := func(l *Ledger, count int, days ...int64) *Entry {
		for _, d := range days {
			for range count {
				l.Note(id, says("a@example.net"), router, 1, noon+d*day)
			}
		}
		return l.Find(id)
	}
	for name, c := range map[string]struct {
		e    *Entry
		want Level
	}{
		"one tracer":                 {note(NewLedger(8), 1, 0), NewKey},
		"a thousand on one day":      {note(NewLedger(8), 1000, 0), NewKey},
		"9 over 9 days":              {note(NewLedger(8), 1, 0, 1, 2, 3, 4, 5, 6, 7, 8), NewKey},
		"10 on two days":             {note(NewLedger(8), 5, 0, 9), NewKey},
		"12 on three days":           {note(NewLedger(8), 4, 0, 1, 2), Consistent},
		"days that come out of turn": {note(NewLedger(8), 4, 2, 1, 0), NewKey},
	} {
		if got := c.e.Level(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	l := NewLedger(8)
	e := note(l, 4, 0, 1, 2)
	if e.Seen = corroborations; e.Level() != Corroborated {
		t.Errorf("its flows were seen: %s", e.Level())
	}
	l.Pin(id, true, noon)
	if e.Level() != Pinned {
		t.Errorf("pinned: %s", e.Level())
	}
	l.Pin(id, false, noon)
	l.Note(id, says("b@example.net"), router, 1, noon+3*day)
	if e.Level() != NewKey || e.Conflicts != 1 || !e.standing {
		t.Errorf("another contact: %s, %d conflicts", e.Level(), e.Conflicts)
	}
	for d := range int64(3) {
		for range 4 {
			l.Note(id, says("b@example.net"), router, 1, noon+(4+d)*day)
		}
	}
	if e.Level() != Corroborated {
		t.Errorf("the same for days again: %s", e.Level())
	}
}

// successor is a message of a key that another endorsed.
func successor(old, next uint64, since int64) *tracer.Message {
	m := says("a@example.net")
	word := tracer.Endorse(key(old), public(key(next)), since)
	m.Succeeds = &word
	return m
}

func TestAnEndorsedKeyInherits(t *testing.T) {
	l := NewLedger(8)
	for d := range int64(3) {
		for range 4 {
			l.Note(public(key(1)), says("a@example.net"), router, 1, noon+d*day)
		}
	}
	since := (noon + 3*day) / 1000
	e := l.Note(public(key(2)), successor(1, 2, since), router, 1, noon+3*day)
	if e.Level() != Consistent || !e.standing || e.Count != 13 || e.First != noon {
		t.Errorf("%s: %+v", e.Level(), e)
	}
	if again := l.Note(public(key(2)), successor(1, 2, since), router, 1, noon+3*day+1); again.Count != 14 {
		t.Errorf("credited twice: %d", again.Count)
	}
	third := l.Note(public(key(3)), successor(2, 3, since), router, 1, noon+4*day)
	if third.Level() != Consistent {
		t.Errorf("a chain of two: %s", third.Level())
	}

	// Who stole the old key and endorses another one harms both, and gains nothing.
	thief := l.Note(public(key(4)), successor(1, 4, since), router, 1, noon+4*day)
	old := l.Find(public(key(1)))
	if thief.Level() != NewKey || thief.Conflicts == 0 || old.Conflicts == 0 || old.Level() != NewKey {
		t.Errorf("a second successor: %s %+v; %+v", thief.Level(), thief, old)
	}
	if e.Level() != Consistent {
		t.Errorf("the first successor: %s", e.Level())
	}
	m := says("a@example.net")
	m.Time = since*1000 + day + 1
	before := old.Conflicts
	if l.Note(public(key(1)), m, router, 1, noon+5*day); old.Conflicts != before+1 {
		t.Error("the old key was used a day after its succession: no conflict")
	}
	if e := l.Note(public(key(5)), successor(99, 5, since), router, 1, noon+4*day); e.Level() != NewKey || e.Predecessor != public(key(99)) {
		t.Errorf("endorsed by a key that nobody knows: %+v", e)
	}
	pinned := NewLedger(8)
	pinned.Pin(public(key(1)), true, noon)
	if e := pinned.Note(public(key(2)), successor(1, 2, since), router, 1, noon); e.Level() != Pinned {
		t.Errorf("endorsed by a pinned key: %s", e.Level())
	}
}

func TestStandingIsNotTakenByOthers(t *testing.T) {
	l := NewLedger(8)
	age := func(n uint64, at int64) *Entry {
		for d := range int64(3) {
			for range 4 {
				l.Note(public(key(n)), says("a@example.net"), router, 1, at+d*day)
			}
		}
		return l.Find(public(key(n)))
	}
	for n := range uint64(8) {
		if e := age(n, noon); !e.standing {
			t.Fatalf("key %d has no standing", n)
		}
	}
	if e := age(100, noon+3*day); e.standing || e.Level() != Consistent {
		t.Errorf("a ninth: %+v", e)
	}
	late := age(101, noon+forgotten+6*day)
	if standing, _ := l.Len(); standing != 8 || !late.standing {
		t.Errorf("a tenth when the others were not heard of for a month: %d, %v", standing, late.standing)
	}
	for list, of := range map[string][]*Entry{"standing": l.standing, "fresh": l.fresh} {
		for i, e := range of {
			if e.index != i || e.gone || l.Find(e.Key) != e || e.standing != (list == "standing") {
				t.Errorf("%s %d: %+v", list, i, e)
			}
		}
	}
}

func TestPathsAreBounded(t *testing.T) {
	e := &Entry{}
	for i := range uint64(20) {
		e.path(networkOf(many(i)), 3, int64(i))
	}
	if len(e.Paths) != maxPaths || e.Networks != 20 || !e.athome(networkOf(many(19)), 3) || e.athome(networkOf(many(19)), 4) || e.athome(networkOf(many(1)), 3) {
		t.Errorf("%+v", e)
	}
}

func filled() *Ledger {
	l := NewLedger(200)
	for n := range uint64(128) {
		for d := range int64(4) {
			for range 3 {
				l.Note(public(key(n)), says("noc@example.net"), many(n), int(n%30), noon+d*day)
			}
		}
	}
	l.Note(public(key(500)), successor(3, 500, noon/1000), netip.MustParseAddr("2001:db8::1"), -1, noon+4*day)
	l.Pin(public(key(600)), true, noon)
	return l
}

func TestTheLedgerIsWrittenAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	if l, err := LoadLedger(path, 200); err != nil || len(l.entries) != 0 {
		t.Fatalf("no file: %v", err)
	}
	l := filled()
	r := New(Options{Ledger: l})
	if err := r.SaveLedger(path, 1000); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if info.Size() > 32<<10 { // twice a day: what a router may write to its flash
		t.Errorf("%d bytes for 130 keys", info.Size())
	}
	again, err := LoadLedger(path, 200)
	if err != nil {
		t.Fatal(err)
	}
	options := []cmp.Option{cmpopts.IgnoreUnexported(Entry{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(l.entries, again.entries, options...); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if s, f := again.Len(); s != 130 || f != 0 {
		t.Errorf("%d with standing, %d without", s, f)
	}
	r.SaveLedger(path, 1000)
	if after, _ := os.Stat(path); !os.SameFile(info, after) {
		t.Error("it was written although nothing had changed")
	}
	r.Do(func(l *Ledger) { l.Note(public(key(1)), says("noc@example.net"), router, 1, noon+5*day) })
	if err := r.SaveLedger(path, 4); err != nil {
		t.Fatal(err)
	}
	if few, err := LoadLedger(path, 200); err != nil || len(few.entries) != 4 || few.Find(public(key(600))) == nil {
		t.Errorf("4 of them: %v, %d", err, len(few.entries))
	}
	if small, err := LoadLedger(path, 8); err != nil || len(small.entries) != 4 {
		t.Errorf("%v, %d", err, len(small.entries))
	}
	file, _ := os.ReadFile(path)
	for name, damaged := range map[string][]byte{"empty": {}, "cut": file[:len(file)/2], "a byte changed": append(append([]byte{}, file[:3000]...), append([]byte{^file[3000]}, file[3001:]...)...)} {
		os.WriteFile(path, damaged, 0o600)
		if l, err := LoadLedger(path, 8); err == nil || l == nil || len(l.entries) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.SaveLedger(filepath.Join(path, "below a file"), 8); err != nil { // nothing has changed
		t.Error(err)
	}
	r.Do(func(l *Ledger) { l.Changed++ })
	if err := r.SaveLedger(filepath.Join(path, "below a file"), 8); err == nil {
		t.Error("no error")
	}
}

func FuzzEntry(f *testing.F) {
	l := filled()
	n := 0
	l.All(func(e *Entry) {
		if n++; n%16 == 0 || !e.standing {
			f.Add(e.append(nil))
		}
	})
	f.Add(l.Find(public(key(500))).append(nil))
	if n != 130 {
		f.Fatalf("a corpus of %d", n)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			if !errors.Is(err, errEntry) {
				t.Error(err)
			}
			return
		}
		again, err := parseEntry(e.append(nil))
		if err != nil || !bytes.Equal(again.append(nil), e.append(nil)) {
			t.Errorf("%v: %+v, %+v", err, e, again)
		}
	})
}

func TestCostIsThatOfASignature(t *testing.T) {
	if c := Cost(); c < time.Microsecond || c > time.Second {
		t.Errorf("%v", c)
	}
	if r := Rates(0.5, 50*time.Microsecond); r != [3]float64{6000, 2000, 2000} {
		t.Errorf("%v", r)
	}
}
