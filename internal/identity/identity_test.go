// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/tracer"
)

// The tests that kill, race or imprison a process start this program anew and
// let it do one thing.
const (
	helperVerb = "OVERFLOWD_TEST_IDENTITY" // create, load, rotate, import
	helperDir  = "OVERFLOWD_TEST_DIR"
	helperText = "OVERFLOWD_TEST_TEXT" // what to import
)

func init() {
	if os.Getenv(helperVerb) != "" {
		runtime.LockOSThread() // strace counts the system calls of each thread
	}
}

func TestMain(m *testing.M) {
	if verb := os.Getenv(helperVerb); verb != "" {
		if err := help(verb, Open(os.Getenv(helperDir))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func help(verb string, s *Store) (err error) {
	io.Copy(io.Discard, os.Stdin) // until all are ready
	var id *Identity
	switch verb {
	case "create":
		id, err = s.LoadOrCreate()
	case "load":
		id, err = s.Load()
	case "rotate":
		id, err = s.Rotate()
	case "import":
		if id, err = ParseText([]byte(os.Getenv(helperText))); err == nil {
			err = s.Import(id, true)
		}
	}
	if err == nil {
		fmt.Println(id.Public())
	}
	return err
}

// missingTool skips on a laptop and fails in CI.
func missingTool(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// fixed returns an identity whose keys are made of small numbers, n times
// rotated.
func fixed(n int) *Identity {
	id := &Identity{Private: fixedKey(0), Created: time.Unix(1_800_000_000, 0)}
	for i := range n {
		next := &Identity{Private: fixedKey(i + 1), Created: id.Created.Add(time.Hour)}
		e := tracer.Endorse(id.Private, next.Public(), next.Created.Unix())
		next.Succession = append(append(next.Succession, id.Succession...), e)
		id = next
	}
	return id
}

func fixedKey(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(n + 1)}, ed25519.SeedSize))
}

func mustLoad(t *testing.T, s *Store) *Identity {
	t.Helper()
	id, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func mustImport(t *testing.T, s *Store, id *Identity) {
	t.Helper()
	if err := s.Import(id, true); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestLoadTouchesNothingWhenThereIsNoKey(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []*Store{Open(dir), Open(filepath.Join(dir, "not", "there"))} {
		if id, err := s.Load(); !errors.Is(err, ErrNone) || id != nil {
			t.Errorf("Load in %s: %v, %v", s.dir, id, err)
		}
		if id, err := s.Rotate(); !errors.Is(err, ErrNone) || id != nil {
			t.Errorf("Rotate in %s: %v, %v", s.dir, id, err)
		}
		if stamp := s.Stamp(); stamp != (Stamp{}) {
			t.Errorf("Stamp in %s: %v", s.dir, stamp)
		}
	}
	if got := names(t, dir); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

func TestTheKeyIsMadeOnceAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Open(filepath.Join(t.TempDir(), "a", "b"))
		time.Sleep(1500 * time.Millisecond)
		made, err := s.LoadOrCreate()
		if err != nil {
			t.Fatal(err)
		}
		if want := time.Unix(time.Now().Unix(), 0); !made.Created.Equal(want) {
			t.Errorf("created %v, want %v", made.Created, want)
		}
		if made.Endorsement() != nil {
			t.Error("the first key is endorsed")
		}
		time.Sleep(time.Hour)
		again, err := Open(s.dir).LoadOrCreate()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, again); diff != "" {
			t.Errorf("(-made +again)\n%s", diff)
		}
		if diff := cmp.Diff(made, mustLoad(t, s)); diff != "" {
			t.Errorf("(-made +loaded)\n%s", diff)
		}
		other, err := Open(t.TempDir()).LoadOrCreate()
		if err != nil {
			t.Fatal(err)
		}
		if other.Private.Equal(made.Private) {
			t.Error("two folders have the same key")
		}
	})
}

func TestRotationIsEndorsedAndForgetsTheOldSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Open(t.TempDir())
		old, err := s.LoadOrCreate()
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n <= 3; n++ {
			time.Sleep(24 * time.Hour)
			next, err := s.Rotate()
			if err != nil {
				t.Fatal(err)
			}
			e := next.Endorsement()
			if e == nil || !e.Valid() || e.Old != old.Public() || e.New != next.Public() || e.Since != time.Now().Unix() {
				t.Fatalf("rotation %d: endorsement %+v", n, e)
			}
			if next.Private.Equal(old.Private) {
				t.Errorf("rotation %d: the key is the same", n)
			}
			if diff := cmp.Diff(append(old.Succession, *e), next.Succession); diff != "" {
				t.Errorf("rotation %d: (-want +got)\n%s", n, diff)
			}
			if diff := cmp.Diff(next, mustLoad(t, s)); diff != "" {
				t.Errorf("rotation %d: (-made +loaded)\n%s", n, diff)
			}
			file, err := os.ReadFile(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(file, old.Private.Seed()) {
				t.Errorf("rotation %d: the old secret is still in the file", n)
			}
			if !bytes.Contains(file, next.Private.Seed()) {
				t.Errorf("rotation %d: the search for secrets finds none", n)
			}
			old = next
		}
		if got := names(t, s.dir); len(got) != 1 {
			t.Errorf("left behind: %v", got)
		}
	})
}

func TestTheOldestOf65RotationsIsForgotten(t *testing.T) {
	s := Open(t.TempDir())
	full := fixed(64)
	mustImport(t, s, full)
	if diff := cmp.Diff(full, mustLoad(t, s)); diff != "" {
		t.Errorf("64 rotations: (-want +got)\n%s", diff)
	}
	next, err := s.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Succession) != 64 {
		t.Fatalf("%d endorsements", len(next.Succession))
	}
	if diff := cmp.Diff(full.Succession[1:], next.Succession[:63]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(next, mustLoad(t, s)); diff != "" {
		t.Errorf("(-made +loaded)\n%s", diff)
	}
	if err := Open(t.TempDir()).Import(fixed(65), true); err == nil {
		t.Error("65 endorsements are accepted")
	}
}

func TestWhatIsNoIdentityIsNotWritten(t *testing.T) {
	for name, spoil := range map[string]func(id *Identity){
		"no key":                            func(id *Identity) { id.Private = nil },
		"a key of half the size":            func(id *Identity) { id.Private = id.Private[:32] },
		"a public key of another secret":    func(id *Identity) { id.Private = append(id.Private[:32:32], fixedKey(9)[32:]...) },
		"made before 1970":                  func(id *Identity) { id.Created = time.Time{} },
		"made after 9999":                   func(id *Identity) { id.Created = time.Unix(maxTime+1, 0) },
		"an endorsement of another key":     func(id *Identity) { id.Private = fixedKey(9) },
		"a gap in the succession":           func(id *Identity) { id.Succession = append(id.Succession[:1:1], id.Succession[2]) },
		"a succession in the wrong order":   func(id *Identity) { s := id.Succession; s[0], s[1] = s[1], s[0] },
		"a time that was not signed":        func(id *Identity) { id.Succession[0].Since++ },
		"a signature of another key":        func(id *Identity) { id.Succession[1].Signature = id.Succession[2].Signature },
		"a signed time that is before 1970": func(id *Identity) { id.Succession[2] = tracer.Endorse(fixedKey(2), id.Public(), -1) },
	} {
		t.Run(name, func(t *testing.T) {
			id := fixed(3)
			spoil(id)
			s := Open(filepath.Join(t.TempDir(), "state"))
			if err := s.Import(id, true); err == nil {
				t.Error("no error")
			}
			if got := names(t, filepath.Dir(s.dir)); got != nil {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}

func TestImport(t *testing.T) {
	forged := fixed(3)
	forged.Succession = forged.Succession[2:]
	for _, c := range []struct {
		name       string
		there, new *Identity
		replace    bool
		want       *Identity
		err        error
		writes     int
	}{
		{name: "another key is refused", there: fixed(0), new: fixed(1), want: fixed(0), err: ErrOther},
		{name: "the key before a rotation is refused", there: fixed(2), new: fixed(1), want: fixed(2), err: ErrOther},
		{name: "a succession cut short is refused", there: fixed(3), new: forged, want: fixed(3), err: ErrOther},
		{name: "another key replaces when told to", there: fixed(0), new: fixed(1), replace: true, want: fixed(1), writes: 1},
		{name: "a succession cut short replaces when told to", there: fixed(3), new: forged, replace: true, want: forged, writes: 1},
		{name: "the same key is nothing to write", there: fixed(3), new: fixed(3), want: fixed(3)},
		{name: "the same key is nothing to write when told to replace", there: fixed(3), new: fixed(3), replace: true, want: fixed(3)},
		{name: "the first key is written", new: fixed(2), want: fixed(2), writes: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Open(filepath.Join(t.TempDir(), "state"))
			if c.there != nil {
				mustImport(t, s, c.there)
			}
			writes := 0
			s.watch = func(step string, do func() error) error {
				if step == "write" {
					writes++
				}
				return do()
			}
			err := s.Import(c.new, c.replace)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), c.there.Public().String()) {
				t.Errorf("error %q does not name the key that is there", err)
			}
			if diff := cmp.Diff(c.want, mustLoad(t, s)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if writes != c.writes {
				t.Errorf("%d writes, want %d", writes, c.writes)
			}
		})
	}
}

func TestAChangeIsNoticed(t *testing.T) {
	s := Open(t.TempDir())
	seen := map[Stamp]string{s.Stamp(): "nothing"}
	note := func(what string) {
		t.Helper()
		if before, ok := seen[s.Stamp()]; ok {
			t.Errorf("%s looks like %s", what, before)
		}
		seen[s.Stamp()] = what
	}
	mustImport(t, s, fixed(0))
	note("the first key")
	mustImport(t, s, fixed(1)) // of the same size, within a tick of the clock
	note("the second key")
	stamp := s.Stamp()
	mustImport(t, s, fixed(1))
	mustLoad(t, s)
	if s.Stamp() != stamp {
		t.Error("a change is noticed when there is none")
	}
}

func TestOnlyTheOwnerHasAccess(t *testing.T) {
	for _, umask := range []int{0o077, 0o022, 0, 0o277} {
		s := Open(filepath.Join(t.TempDir(), "a", "b"))
		if umask == 0o277 { // would make a folder that its owner cannot use
			if err := os.MkdirAll(s.dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		seen := os.FileMode(0)
		s.watch = func(step string, do func() error) error {
			err := do()
			if info, err := os.Stat(s.Path() + ".tmp"); err == nil {
				seen |= info.Mode().Perm()
			}
			return err
		}
		before := syscall.Umask(umask)
		_, err := s.LoadOrCreate()
		if err == nil {
			_, err = s.Rotate()
		}
		syscall.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		if seen&^0o600 != 0 || seen == 0 {
			t.Errorf("umask %03o: the temporary file had mode %v", umask, seen)
		}
		for name, want := range map[string]os.FileMode{s.Path(): 0o600, s.dir: 0o700, filepath.Dir(s.dir): 0o700} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("umask %03o: %s has mode %v, want %v", umask, name, got, want)
			}
		}
	}
}

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	s := Open(t.TempDir())
	mustImport(t, s, fixed(1))
	before, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o700, 0o400} {
		if err := os.Chmod(s.Path(), mode); err != nil {
			t.Fatal(err)
		}
		want := mode&0o077 != 0
		for verb, do := range verbs(s) {
			if verb != "load" && !want {
				continue // as it would change the file
			}
			err := do()
			if refused := err != nil; refused != want {
				t.Errorf("mode %v: %s: %v", mode, verb, err)
			}
			if want && !strings.Contains(fmt.Sprint(err), "chmod 600 "+s.Path()) {
				t.Errorf("mode %v: %s: %v does not say what to do", mode, verb, err)
			}
		}
	}
	if after, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
}

// verbs are all the ways to use a store.
func verbs(s *Store) map[string]func() error {
	return map[string]func() error{
		"load":   func() error { _, err := s.Load(); return err },
		"create": func() error { _, err := s.LoadOrCreate(); return err },
		"rotate": func() error { _, err := s.Rotate(); return err },
		"import": func() error { return s.Import(fixed(7), false) },
	}
}

func TestRootFollowsNoLinkOfTheFoldersOwner(t *testing.T) {
	s := Open(t.TempDir())
	mustImport(t, s, fixed(0))
	victim := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(victim, []byte("root:x"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, s.Path()+".tmp"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, s.Path()); err != nil {
		t.Fatal(err)
	}
	for verb, do := range verbs(s) {
		if err := do(); err == nil || !strings.Contains(err.Error(), "symbolic link") || errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	text, err := os.ReadFile(victim)
	if err != nil || string(text) != "root:x" {
		t.Errorf("the file behind the link is %q, %v", text, err)
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file behind the link has mode %v, %v", info.Mode(), err)
	}
}

func TestRootLeavesTheKeyToTheFoldersOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	s := Open(t.TempDir())
	if err := os.Chown(s.dir, 4711, 4712); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() (*Identity, error){s.LoadOrCreate, s.Rotate} {
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		if sys := info.Sys().(*syscall.Stat_t); sys.Uid != 4711 || sys.Gid != 4712 || info.Mode().Perm() != 0o600 {
			t.Errorf("owner %d:%d, mode %v", sys.Uid, sys.Gid, info.Mode())
		}
	}
}

// A key costs the flash so much, and no more: 6 pages, and a trailer.
func TestBytesWritten(t *testing.T) {
	s := Open(t.TempDir())
	size := 0
	s.watch = func(step string, do func() error) error {
		err := do()
		if step == "write" {
			info, err := os.Stat(s.Path() + ".tmp")
			if err != nil {
				t.Fatal(err)
			}
			size += int(info.Size())
		}
		return err
	}
	for _, c := range []struct {
		name  string
		do    func() error
		bound int
	}{
		{"creation", func() error { _, err := s.LoadOrCreate(); return err }, 6500},
		{"the next start", func() error { _, err := s.LoadOrCreate(); return err }, 0},
		{"rotation", func() error { _, err := s.Rotate(); return err }, 6500},
		{"import of 64 rotations", func() error { return s.Import(fixed(64), true) }, 20 << 10},
		{"the 65th rotation", func() error { _, err := s.Rotate(); return err }, 20 << 10},
	} {
		size = 0
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", c.name, size)
		if size > c.bound {
			t.Errorf("%s writes %d bytes, more than %d", c.name, size, c.bound)
		}
	}
}
