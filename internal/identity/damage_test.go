// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// put makes content the database of the store, unsynced.
func put(t *testing.T, s *Store, content []byte) {
	t.Helper()
	if err := os.WriteFile(s.Path(), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// damaged checks that a Load ended with a DamagedError that says what to do.
func damaged(t *testing.T, s *Store, err error) bool {
	t.Helper()
	d := (*DamagedError)(nil)
	if !errors.As(err, &d) || d.Path != s.Path() || errors.Is(err, ErrNone) {
		t.Errorf("error %v, want a DamagedError", err)
		return false
	}
	for _, want := range []string{s.Path(), "overflowd key import --replace", "move the file away"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
			return false
		}
	}
	return true
}

func encoded(t *testing.T, id *Identity) []byte {
	t.Helper()
	file, err := encode(id)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// stride thins the sweeps over a whole file out, for qemu-user.
func stride() int {
	if testing.Short() {
		return 7
	}
	return 1
}

func TestEveryFlippedByteIsNoticed(t *testing.T) {
	s := Open(t.TempDir())
	want := fixed(2)
	file := encoded(t, want)
	for i := 0; i < len(file); i += stride() {
		file[i] ^= 0xff
		put(t, s, file)
		id, err := s.Load()
		if err == nil && !id.equal(want) {
			t.Fatalf("byte %d: another key, %s", i, id.Public())
		}
		if err != nil && !damaged(t, s, err) {
			t.Fatalf("byte %d", i)
		}
		if i%(64*stride()) == 0 {
			leavesItAlone(t, s)
		}
		file[i] ^= 0xff
	}
}

func TestEveryTruncationIsNoticed(t *testing.T) {
	s := Open(t.TempDir())
	file := encoded(t, fixed(2))
	for size := 0; size < len(file); size += stride() {
		put(t, s, file[:size])
		if id, err := s.Load(); id != nil || !damaged(t, s, err) {
			t.Fatalf("%d bytes: %v", size, id)
		}
		if size%(64*stride()) == 0 {
			leavesItAlone(t, s)
		}
	}
}

// leavesItAlone checks that a database that is damaged stays as it is, whatever
// the store is asked to do.
func leavesItAlone(t *testing.T, s *Store) {
	t.Helper()
	before, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	for verb, do := range verbs(s) {
		if err := do(); err == nil || !damaged(t, s, err) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if after, err := os.ReadFile(s.Path()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the damaged file was touched: %v", err)
	}
}

func TestWhatIsNoDatabaseIsNotReplaced(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"an empty file":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a text":              func(path string) error { return os.WriteFile(path, fixed(0).AppendText(nil), 0o600) },
		"zeros":               func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{0}, 6184), 0o600) },
		"a file of a GB":      func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<30)) },
		"a folder":            func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe nobody feeds": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"an empty bbolt":      func(path string) error { return otherBolt(path, func(*bbolt.Tx) error { return nil }) },
		"another bbolt": func(path string) error {
			return otherBolt(path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucketIdentity); return err })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := Open(t.TempDir())
			if err := make(s.Path()); err != nil {
				t.Fatal(err)
			}
			for verb, do := range verbs(s) {
				if err := do(); err == nil || !damaged(t, s, err) {
					t.Errorf("%s: %v", verb, err)
				}
			}
		})
	}
}

func otherBolt(path string, fill func(*bbolt.Tx) error) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		return err
	}
	return errors.Join(db.Update(fill), db.Close())
}

// resealed gives a database the checksum that it should have.
func resealed(file []byte) []byte {
	body := file[:len(file)-sha256.Size]
	sum := sha256.Sum256(body[:len(body)-len(trailer)])
	return append(body[:len(body):len(body)], sum[:]...)
}

func TestAForgedDatabaseIsNoticed(t *testing.T) {
	edit := func(do func(id, succession *bbolt.Bucket) error) func(path string) error {
		return func(path string) error {
			return otherBolt(path, func(tx *bbolt.Tx) error {
				if err := fill(tx, fixed(2)); err != nil {
					return err
				}
				return do(tx.Bucket(bucketIdentity), tx.Bucket(bucketSuccession))
			})
		}
	}
	index := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a later format":              {edit(func(id, _ *bbolt.Bucket) error { return id.Put(keyFormat, []byte{2}) }), "a newer version of overflowd"},
		"no format":                   {edit(func(id, _ *bbolt.Bucket) error { return id.Delete(keyFormat) }), "its format is"},
		"no seed":                     {edit(func(id, _ *bbolt.Bucket) error { return id.Delete(keySeed) }), "there is no key in it"},
		"a seed of 31 bytes":          {edit(func(id, _ *bbolt.Bucket) error { return id.Put(keySeed, make([]byte, 31)) }), "there is no key in it"},
		"another seed":                {edit(func(id, _ *bbolt.Bucket) error { return id.Put(keySeed, make([]byte, 32)) }), "the public key does not fit"},
		"no public key":               {edit(func(id, _ *bbolt.Bucket) error { return id.Delete(keyPublic) }), "the public key does not fit"},
		"no time":                     {edit(func(id, _ *bbolt.Bucket) error { return id.Delete(keyCreated) }), "there is no key in it"},
		"a time before 1970":          {edit(func(id, _ *bbolt.Bucket) error { return id.Put(keyCreated, bytes.Repeat([]byte{255}, 8)) }), "1970"},
		"no succession":               {edit(func(id, _ *bbolt.Bucket) error { return id.Tx().DeleteBucket(bucketSuccession) }), "a bucket is missing"},
		"an endorsement of 135 bytes": {edit(func(_, s *bbolt.Bucket) error { return s.Put(index(1), s.Get(index(1))[:135]) }), "endorsement 2 is malformed"},
		"an endorsement left out":     {edit(func(_, s *bbolt.Bucket) error { return s.Delete(index(0)) }), "endorsement 1 is malformed"},
		"an endorsement too many":     {edit(func(_, s *bbolt.Bucket) error { return s.Put(index(2), s.Get(index(1))) }), "endorsement 2 is not valid"},
		"a bucket as an endorsement":  {edit(func(_, s *bbolt.Bucket) error { _, err := s.CreateBucket(index(2)); return err }), "endorsement 3 is malformed"},
		"nothing forged":              {edit(func(_, _ *bbolt.Bucket) error { return nil }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "forged")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := Open(t.TempDir())
			put(t, s, resealed(append(append(file, trailer...), make([]byte, sha256.Size)...)))
			_, err = s.Load()
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if damaged(t, s, err) && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// Where the checksum fits, what bbolt would take on trust is refused still: see
// checkPages.
func TestAForgedPageIsNoOtherKey(t *testing.T) {
	want := fixed(1)
	file := encoded(t, want)
	refused := 0
	for i := 2 * pageSize; i < len(file)-trailerSize; i += stride() {
		file[i] ^= 0xff
		id, err := decode(resealed(file))
		file[i] ^= 0xff
		if err == nil && id.Public() != want.Public() {
			t.Errorf("byte %d: another key", i)
		}
		if err != nil && strings.HasPrefix(err.Error(), "bbolt: ") {
			refused++
		}
	}
	t.Logf("%d bytes refused", refused)
	if refused == 0 {
		t.Error("nothing is refused")
	}
}

func TestADamagedDatabaseIsReplacedByImportOnlyWhenTold(t *testing.T) {
	s := Open(t.TempDir())
	put(t, s, []byte("damaged"))
	if err := s.Import(fixed(1), false); !damaged(t, s, err) {
		t.FailNow()
	}
	mustImport(t, s, fixed(1))
	if id := mustLoad(t, s); !id.equal(fixed(1)) {
		t.Errorf("got %s", id.Public())
	}
}

func TestADatabaseOfTheOtherByteOrderSaysHowKeysMove(t *testing.T) {
	file := encoded(t, fixed(0))
	// As the other byte order has it: the magic, the page size and the rest. Of
	// these only the magic is read.
	for _, page := range []int{0, pageSize} {
		magic := file[page+boltMagicAt:][:4]
		magic[0], magic[1], magic[2], magic[3] = magic[3], magic[2], magic[1], magic[0]
	}
	s := Open(t.TempDir())
	put(t, s, resealed(file))
	if _, err := s.Load(); damaged(t, s, err) && !strings.Contains(err.Error(), "overflowd key export") {
		t.Error(err)
	}
}

func TestTheDatabaseIsSound(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 5, 8, 13, 34, maxSuccession} {
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, encoded(t, fixed(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		// As bbolt's own tools read it, with the trailer behind.
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("%d rotations: %v", n, err)
			}
			return nil
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
