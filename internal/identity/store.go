// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNone: there is no key yet.
var ErrNone = errors.New("no key yet")

// ErrOther: there is another key in place of which one was to be imported.
var ErrOther = errors.New("there is another key")

// DamagedError: the database is there and cannot be used. It is never replaced
// silently: with it the reputation of the key would be lost.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the signing key in %s is damaged (%v): put a backup in its place, "+
		"or move it away to start with a new key, and without the reputation of this one", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

const fileName = "identity.db"

// A Store is the folder where the identity lives. Its methods may be called by
// several processes at a time: a lock on the folder keeps them apart.
type Store struct {
	dir string
	// before, if not nil, is called before each step that changes the folder,
	// and fails it. Tests cut the power there.
	before func(step string, data *[]byte) error
}

// Open names the folder. It touches nothing.
func Open(dir string) *Store { return &Store{dir: dir} }

// Path returns the path of the database.
func (s *Store) Path() string { return filepath.Join(s.dir, fileName) }

// Stamp tells one version of the file from another.
type Stamp struct {
	size, modified int64
	inode          uint64
}

// Stamp returns that of the file as it is now, the zero Stamp if there is none.
func (s *Store) Stamp() Stamp {
	info, err := os.Stat(s.Path())
	if err != nil {
		return Stamp{}
	}
	stamp := Stamp{size: info.Size(), modified: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		stamp.inode = uint64(sys.Ino)
	}
	return stamp
}

// Load reads the identity: ErrNone if there is none, *DamagedError if there is
// one that cannot be used.
func (s *Store) Load() (*Identity, error) {
	f, err := os.Open(s.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNone, s.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &DamagedError{s.Path(), errors.New("it is no regular file")}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("the signing key can be read by others (mode %#o): if they had no hand in that, chmod 600 %s", perm, s.Path())
	}
	file, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if len(file) > maxFile {
		return nil, &DamagedError{s.Path(), errors.New("it is too large")}
	}
	id, err := decode(file)
	if err != nil {
		return nil, &DamagedError{s.Path(), err}
	}
	return id, nil
}

// LoadOrCreate reads the identity and makes it if there is none.
func (s *Store) LoadOrCreate() (*Identity, error) {
	if id, err := s.Load(); !errors.Is(err, ErrNone) {
		return id, err
	}
	return s.change(func(old *Identity, err error) (*Identity, error) {
		if errors.Is(err, ErrNone) { // and no other process was faster
			return New(time.Now()), nil
		}
		return old, err
	})
}

// Rotate makes a new key, endorsed by the old one, whose secret is forgotten.
func (s *Store) Rotate() (*Identity, error) {
	return s.change(func(old *Identity, err error) (*Identity, error) {
		if err != nil {
			return nil, err
		}
		return old.successor(time.Now()), nil
	})
}

// Import puts an identity in place. If there is another key it returns
// ErrOther, and if there is one that is damaged *DamagedError, unless that is to
// be replaced.
func (s *Store) Import(id *Identity, replace bool) error {
	_, err := s.change(func(old *Identity, err error) (*Identity, error) {
		damaged := (*DamagedError)(nil)
		switch {
		case errors.Is(err, ErrNone) || replace && errors.As(err, &damaged):
			return id, nil
		case err != nil:
			return nil, err
		case old.equal(id):
			return old, nil
		case !replace && !old.Private.Equal(id.Private):
			return nil, fmt.Errorf("%w, %s, in %s", ErrOther, old.Public(), s.dir)
		}
		return id, nil
	})
	return err
}

// change replaces the identity, under the lock, by what next returns for the
// result of Load.
func (s *Store) change(next func(old *Identity, err error) (*Identity, error)) (*Identity, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the signing key: %w", err)
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the signing key: %w", err)
	}
	defer dir.Close() // and unlock
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return nil, fmt.Errorf("lock %s: %w", s.dir, err)
		}
	}
	old, err := s.Load()
	id, err := next(old, err)
	if err != nil || id == old {
		return id, err
	}
	file, err := encode(id)
	if err == nil {
		err = s.write(dir, file)
	}
	if err != nil {
		return nil, fmt.Errorf("write the signing key: %w", err)
	}
	return id, nil
}

// write replaces the file, so that a crash at any point leaves the old or the
// new one: the new content is on the medium before the name points to it.
func (s *Store) write(dir *os.File, data []byte) (err error) {
	temporary := s.Path() + ".new"
	defer func() {
		if err != nil && s.step("remove", nil) == nil {
			os.Remove(temporary)
		}
	}()
	if err := s.step("create", nil); err != nil {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil { // one that was left behind may have another mode
		return err
	}
	if os.Geteuid() == 0 { // a daemon that dropped its privileges must still read it
		if err := chownLike(f, dir); err != nil {
			return err
		}
	}
	cut := s.step("write", &data)
	if _, err := f.Write(data); err != nil {
		return err
	}
	if cut != nil {
		return cut
	}
	if err := s.step("sync", nil); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.step("rename", nil); err != nil {
		return err
	}
	if err := os.Rename(temporary, s.Path()); err != nil {
		return err
	}
	if err := s.step("sync folder", nil); err != nil {
		return err
	}
	// Some filesystems cannot sync a folder, and say so.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// chownLike gives f the owner of the folder.
func chownLike(f, dir *os.File) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
		return f.Chown(int(sys.Uid), int(sys.Gid))
	}
	return nil
}

func (s *Store) step(name string, data *[]byte) error {
	if s.before == nil {
		return nil
	}
	return s.before(name, data)
}
