// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"cmp"
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

// Error says what to do, too.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("the signing key in %s cannot be used: %v: bring it back with "+
		"overflowd key import --replace BACKUP, or move the file away to start with a new key, which has none of its reputation",
		e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

const fileName = "identity.db"

// A Store is the folder where the identity lives. Its methods may be called
// from several goroutines and by several processes at a time: a lock on the
// folder keeps those that write apart, and who reads sees the old file or the
// new one.
type Store struct {
	dir  string
	name string // of the file, "" for the one of the key
	// watch, if not nil, does the steps of a write in place of the store. Tests
	// cut the power there.
	watch func(step string, do func() error) error
}

// Open names the folder. It touches nothing.
func Open(dir string) *Store { return &Store{dir: filepath.Clean(dir)} }

// Path returns the path of the database.
func (s *Store) Path() string { return filepath.Join(s.dir, cmp.Or(s.name, fileName)) }

// Stamp tells one version of the file from another.
type Stamp struct {
	size, modified int64
	inode          uint64
}

// Stamp returns that of the file as it is now, the zero Stamp if there is none.
// It costs one stat. Take it before Load: a rotation in between is then noticed
// the next time.
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
// one that cannot be used, another error if it may not be read, or may be read
// by too many.
func (s *Store) Load() (*Identity, error) {
	// A link is not followed, as the next write would replace it and not what it
	// points to, and a pipe is not waited for: the folder may be that of a user
	// whom root must not trust.
	f, err := os.OpenFile(s.Path(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w in %s", ErrNone, s.dir)
	case errors.Is(err, syscall.ELOOP):
		return nil, fmt.Errorf("read the signing key: %s is a symbolic link: name the folder of the file itself", s.Path())
	case unreadable(err):
		return nil, &DamagedError{s.Path(), err}
	case err != nil:
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
		return nil, fmt.Errorf("others than its owner have access to the signing key (mode %04o): if none of them misused that, chmod 600 %s", perm, s.Path())
	}
	// All of it is read before bbolt sees it. Were the file mapped, a sector that
	// cannot be read would be a fault in place of an error.
	file, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if unreadable(err) {
		return nil, &DamagedError{s.Path(), err}
	}
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if len(file) > maxFile {
		return nil, &DamagedError{s.Path(), fmt.Errorf("it is larger than %d bytes", maxFile)}
	}
	id, err := decode(file)
	if errno := syscall.Errno(0); errors.As(err, &errno) { // not the file's fault
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	if err != nil {
		return nil, &DamagedError{s.Path(), err}
	}
	return id, nil
}

// unreadable tells whether a medium is damaged: JFFS2 and UBIFS say so when
// their own checksums do not fit.
func unreadable(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG)
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
// It returns ErrNone if there is no key to rotate.
func (s *Store) Rotate() (*Identity, error) {
	if _, err := s.Load(); err != nil { // without making the folder
		return nil, err
	}
	return s.change(func(old *Identity, err error) (*Identity, error) {
		if err != nil {
			return nil, err
		}
		return old.successor(time.Now()), nil
	})
}

// Import puts an identity in place. Unless replace is set, it returns ErrOther
// if there is another key, or this one with another succession, and
// *DamagedError if what is there cannot be read. If the same is there already,
// nothing is written.
func (s *Store) Import(id *Identity, replace bool) error {
	if err := id.check(); err != nil {
		return fmt.Errorf("import a signing key: %w", err)
	}
	_, err := s.change(func(old *Identity, err error) (*Identity, error) {
		damaged := (*DamagedError)(nil)
		switch {
		case errors.Is(err, ErrNone) || replace && errors.As(err, &damaged):
			return id, nil
		case err != nil:
			return nil, err
		case old.equal(id):
			return old, nil
		case replace:
			return id, nil
		case old.Private.Equal(id.Private):
			return nil, fmt.Errorf("%w: the same, %s, with %d endorsements in place of %d, in %s",
				ErrOther, old.Public(), len(old.Succession), len(id.Succession), s.dir)
		}
		return nil, fmt.Errorf("%w, %s, in %s", ErrOther, old.Public(), s.dir)
	})
	return err
}

// change replaces the identity, under the lock, by what next returns for the
// result of Load.
func (s *Store) change(next func(old *Identity, err error) (*Identity, error)) (*Identity, error) {
	if err := s.makeDir(); err != nil {
		return nil, fmt.Errorf("make the folder of the signing key: %w%s", err, advice(err))
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of the signing key: %w", err)
	}
	defer dir.Close() // and unlock
	if err := lock(dir); err != nil {
		return nil, err
	}
	old, err := s.Load()
	id, err := next(old, err)
	if err != nil || id == old {
		return id, err
	}
	file, err := encode(id)
	if err != nil {
		return nil, fmt.Errorf("build the database of the signing key: %w", err)
	}
	if _, err := decode(file); err != nil { // before it takes the place of one that is good
		return nil, fmt.Errorf("build the database of the signing key: %w", err)
	}
	if err := s.write(dir, file); err != nil {
		return nil, fmt.Errorf("write the signing key: %w%s", err, advice(err))
	}
	return id, nil
}

// lock waits until no other process holds the lock on the folder. It ends with
// the file, at the latest with the process, and leaves nothing on the flash.
func lock(dir *os.File) error {
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
		if err == nil {
			return nil
		}
		if err != syscall.EINTR {
			return fmt.Errorf("lock %s: %w", dir.Name(), err)
		}
	}
}
