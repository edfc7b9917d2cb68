// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// write replaces the file, so that a crash at any point leaves the old or the
// new one: the new content is on the medium before the name points to it. What
// is left of a write that was cut short lies in a file of another name, which
// nobody reads and the next write removes.
func (s *Store) write(dir *os.File, data []byte) (err error) {
	temporary := s.Path() + ".tmp"
	remove := func() error { return os.Remove(temporary) }
	if err := s.step("remove", remove); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var f *os.File
	err = s.step("create", func() (err error) {
		// O_EXCL: root follows no link that the owner of the folder laid there.
		f, err = os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			s.step("remove", remove) // so that a full flash is not left fuller
		}
	}()
	if err := own(f, dir); err != nil {
		return err
	}
	if err := s.step("write", func() error { _, err := f.Write(data); return err }); err != nil {
		return err
	}
	if err := s.step("sync", f.Sync); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := s.step("rename", func() error { return os.Rename(temporary, s.Path()) }); err != nil {
		return err
	}
	return s.step("sync folder", func() error { return syncDir(dir) })
}

func (s *Store) step(name string, do func() error) error {
	if s.watch != nil {
		return s.watch(name, do)
	}
	return do()
}

// own gives f to the owner of the folder and to nobody else: a daemon that
// dropped its privileges must be able to read what root rotated.
func own(f, dir *os.File) error {
	if err := f.Chmod(0o600); err != nil { // whatever the umask
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
		return f.Chown(int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// makeDir makes the folder, and those above it, if it is missing. A folder is
// on the medium when the one above it is synced; who made this one before may
// have left that out.
func (s *Store) makeDir() error {
	above := []string{filepath.Dir(s.dir)}
	for dir := above[0]; missing(dir); dir = filepath.Dir(dir) {
		above = append(above, filepath.Dir(dir))
	}
	err := s.step("make folder", func() error { return os.MkdirAll(s.dir, 0o700) })
	if err != nil {
		return err
	}
	return s.step("sync folders above", func() error {
		for _, name := range above {
			dir, err := os.Open(name)
			if errors.Is(err, fs.ErrPermission) { // so it was not made here
				continue
			}
			if err != nil {
				return err
			}
			err = syncDir(dir)
			dir.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func missing(name string) bool {
	_, err := os.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}

// syncDir makes the names in a folder durable. Some filesystems cannot, and say
// so; one that is mounted read-only has nothing to sync.
func syncDir(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	return err
}

// advice says what to do about an error.
func advice(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ": there must be room for a second copy of the key: free some and try again"
	case errors.Is(err, syscall.EROFS):
		return ": mount it writable, or name another folder with --state"
	case errors.Is(err, fs.ErrPermission):
		return ": be the owner of the folder, or name another one with --state"
	case errors.Is(err, syscall.EIO):
		return ": export the key, if it can be read, and replace the medium"
	}
	return ""
}
