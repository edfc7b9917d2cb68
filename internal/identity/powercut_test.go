// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What a power cut may leave of a write, as POSIX and the worst filesystems
// have it:
//   - what was written and not synced is there in part, is zeros, or is not
//     there;
//   - a change of names is durable when the folder was synced, and before that
//     may be durable or not, whatever the state of the data;
//   - changes of names become durable in their order, and a rename may leave
//     the new file under both names.

// disk is what the folder holds: nil for a file that is not there.
type disk struct{ db, tmp []byte }

// op is a step of the store, and what the temporary file held after it.
type op struct {
	step string
	tmp  []byte
}

// record does the change and returns its steps.
func record(t *testing.T, s *Store, change func() error) (ops []op) {
	t.Helper()
	s.watch = func(step string, do func() error) error {
		err := do()
		tmp, _ := os.ReadFile(s.Path() + ".tmp")
		ops = append(ops, op{step, tmp})
		return err
	}
	err := change()
	s.watch = nil
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

// cuts returns what may be there after a cut behind the last of the ops.
func cuts(before disk, ops []op) []disk {
	type entry struct{ db, tmp int } // the files that the names stand for
	const (
		none = iota
		oldDB
		oldTmp
		fresh
	)
	names := []entry{{oldDB, oldTmp}}
	if before.db == nil {
		names[0].db = none
	}
	if before.tmp == nil {
		names[0].tmp = none
	}
	last := func() entry { return names[len(names)-1] }
	contents := [][]byte{{}} // that the new file may have
	for _, o := range ops {
		switch o.step {
		case "remove":
			names = append(names, entry{last().db, none})
		case "create":
			names = append(names, entry{last().db, fresh})
		case "write":
			for n := 0; n <= len(o.tmp); n += 64 {
				zeros := make([]byte, len(o.tmp))
				copy(zeros, o.tmp[:n])
				contents = append(contents, o.tmp[:n], zeros)
			}
			contents = append(contents, o.tmp)
		case "sync":
			contents = contents[len(contents)-1:]
		case "rename":
			names = append(names, entry{fresh, fresh}, entry{fresh, none})
		case "sync folder":
			names = names[len(names)-1:]
		}
	}
	var disks []disk
	for _, e := range names {
		for _, content := range contents {
			files := [][]byte{nil, before.db, before.tmp, content}
			disks = append(disks, disk{files[e.db], files[e.tmp]})
			if e.db != fresh && e.tmp != fresh {
				break
			}
		}
	}
	return disks
}

func lay(t *testing.T, s *Store, d disk) {
	t.Helper()
	for name, content := range map[string][]byte{s.Path(): d.db, s.Path() + ".tmp": d.tmp} {
		var err error
		if content == nil {
			err = os.RemoveAll(name)
		} else {
			err = os.WriteFile(name, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPowerCutLeavesTheOldKeyOrTheNewOne(t *testing.T) {
	leftover := []byte("what another cut left")
	for _, c := range []struct {
		name   string
		before *Identity
		tmp    []byte
		change func(s *Store) error
	}{
		{"creation", nil, nil, func(s *Store) error { _, err := s.LoadOrCreate(); return err }},
		{"creation after a cut", nil, leftover, func(s *Store) error { _, err := s.LoadOrCreate(); return err }},
		{"rotation", fixed(1), nil, func(s *Store) error { _, err := s.Rotate(); return err }},
		{"rotation after a cut", fixed(1), leftover, func(s *Store) error { _, err := s.Rotate(); return err }},
		{"rotation after the cut of another", fixed(1), encoded(t, fixed(2)), func(s *Store) error { _, err := s.Rotate(); return err }},
		{"import in place of another", fixed(0), nil, func(s *Store) error { return s.Import(fixed(5), true) }},
		{"import where there is none", nil, nil, func(s *Store) error { return s.Import(fixed(5), false) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Open(t.TempDir())
			before := disk{tmp: c.tmp}
			if c.before != nil {
				before.db = encoded(t, c.before)
			}
			lay(t, s, before)
			ops := record(t, s, func() error { return c.change(s) })
			after := mustLoad(t, s)
			seen, ends := map[[32]byte]bool{}, map[string]int{}
			for n := range len(ops) + 1 {
				for _, d := range cuts(before, ops[:n]) {
					key := sha256.Sum256(fmt.Appendf(nil, "%t %d %x %x", n == len(ops), len(d.db), d.db, d.tmp))
					if seen[key] {
						continue
					}
					seen[key] = true
					lay(t, s, d)
					end := ""
					switch id, err := s.Load(); {
					case errors.Is(err, ErrNone) && c.before == nil:
						end = "none"
					case err != nil:
						t.Fatalf("after %d of %d steps, %d bytes in the file and %d in the temporary one: %v", n, len(ops), len(d.db), len(d.tmp), err)
					case id.equal(after):
						end = "new"
					case c.before != nil && id.equal(c.before):
						end = "old"
					default:
						t.Fatalf("after %d of %d steps: a third key, %s", n, len(ops), id.Public())
					}
					if n == len(ops) && end != "new" {
						t.Fatalf("the change was reported done, and a cut leaves %s", end)
					}
					if ends[end]++; ends[end]%16 == 1 {
						goesOn(t, s, end)
					}
				}
			}
			t.Logf("%d steps, %d ends: %v", len(ops), len(seen), ends)
			if before := (map[bool]string{true: "none", false: "old"})[c.before == nil]; ends[before] < 100 || ends["new"] == 0 {
				t.Errorf("the cuts end too much alike: %v", ends)
			}
		})
	}
}

// goesOn checks that the next start and the next rotation work.
func goesOn(t *testing.T, s *Store, end string) {
	t.Helper()
	there, _ := s.Load()
	id, err := s.LoadOrCreate()
	if err != nil {
		t.Fatalf("LoadOrCreate after %s: %v", end, err)
	}
	if there != nil && !there.equal(id) {
		t.Fatalf("LoadOrCreate after %s: another key", end)
	}
	next, err := s.Rotate()
	if err != nil {
		t.Fatalf("Rotate after %s: %v", end, err)
	}
	if !mustLoad(t, s).equal(next) || next.Endorsement().Old != id.Public() {
		t.Fatalf("Rotate after %s: the new key is not that of the file", end)
	}
	if got := names(t, s.dir); len(got) != 1 {
		t.Fatalf("after %s: left behind: %v", end, got)
	}
}

// Each step fails in turn, before it is done or after, and the next change
// works.
func TestAFailedStepLeavesTheOldKeyOrTheNewOne(t *testing.T) {
	broken := errors.New("broken")
	for _, before := range []*Identity{nil, fixed(1)} {
		for _, done := range []bool{false, true} {
			for n := 0; ; n++ {
				s := Open(filepath.Join(t.TempDir(), "state"))
				change := func() error { _, err := s.LoadOrCreate(); return err }
				if before != nil {
					mustImport(t, s, before)
					change = func() error { _, err := s.Rotate(); return err }
				}
				var steps []string
				s.watch = func(step string, do func() error) error {
					steps = append(steps, step)
					if len(steps)-1 != n {
						return do()
					}
					if done {
						do()
					}
					return broken
				}
				err := change()
				s.watch = nil
				if len(steps) <= n {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				where := fmt.Sprintf("key before: %t, %q failed, done: %t", before != nil, steps[n], done)
				if !errors.Is(err, broken) {
					t.Errorf("%s: error %v", where, err)
				}
				id, err := s.Load()
				switch {
				case errors.Is(err, ErrNone) && before == nil:
				case err != nil:
					t.Errorf("%s: %v", where, err)
				case before != nil && !id.equal(before) && id.Endorsement().Old != before.Public():
					t.Errorf("%s: a third key", where)
				}
				// What was made by a call that failed is left to the next write.
				if _, err := os.Stat(s.Path() + ".tmp"); err == nil && steps[n] != "create" {
					t.Errorf("%s: the temporary file is left behind", where)
				}
				goesOn(t, s, where)
			}
		}
	}
}

// The model must tell a sound write from one that is not.
func TestTheModelOfPowerCutsFindsAMissingSync(t *testing.T) {
	s := Open(t.TempDir())
	before := disk{db: encoded(t, fixed(0))}
	lay(t, s, before)
	ops := record(t, s, func() error { _, err := s.Rotate(); return err })
	for _, c := range []struct {
		without       string
		damaged, lost bool
	}{
		{without: "nothing"},
		{without: "sync", damaged: true},
		{without: "sync folder", lost: true},
	} {
		var rest []op
		for _, o := range ops {
			if o.step != c.without {
				rest = append(rest, o)
			}
		}
		damaged, lost := false, false
		for _, d := range cuts(before, rest) {
			_, err := decode(d.db)
			damaged = damaged || err != nil
			lost = lost || bytes.Equal(d.db, before.db)
		}
		if damaged != c.damaged || lost != c.lost {
			t.Errorf("without %s: damaged %t, lost %t; want %t, %t", c.without, damaged, lost, c.damaged, c.lost)
		}
	}
}
