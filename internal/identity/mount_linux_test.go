// SPDX-License-Identifier: BSD-3-Clause

// See fuse_linux_test.go.
//go:build !mips && !mipsle && !mips64 && !mips64le

package identity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const inNamespace = "OVERFLOWD_TEST_IN_NAMESPACE"

// namespace starts the test anew in a mount namespace of its own, which ends
// with it. It returns true there, and false after.
func namespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		missingTool(t, "make a mount namespace: %v", err)
	}
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("it did not run: %s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// same checks that the key is as it was, and that nothing else is there.
func same(t *testing.T, s *Store, want *Identity) {
	t.Helper()
	id, err := s.Load()
	if want == nil && !errors.Is(err, ErrNone) || want != nil && (err != nil || !id.equal(want)) {
		t.Errorf("the key is not as before: %v", err)
	}
	if _, err := os.Stat(s.Path() + ".tmp"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is left behind: %v", err)
	}
}

// refused checks that a change failed for the reason given, and says what to do.
func refused(t *testing.T, err error, want syscall.Errno, advice string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), advice) {
		t.Errorf("error %v, want %v and %q", err, want, advice)
	}
}

func TestAFullDiskLeavesTheOldKey(t *testing.T) {
	if !namespace(t) {
		return
	}
	const pages = 8
	filler := make([]byte, 4096)
	for _, before := range []*Identity{nil, fixed(1)} {
		for _, limit := range []string{fmt.Sprintf("size=%d", pages*4096), "nr_inodes=4"} {
			failed, done := 0, 0
			for full := pages; full >= 0; full-- {
				s := Open(t.TempDir())
				if err := unix.Mount("none", s.dir, "tmpfs", 0, limit+",mode=0700"); err != nil {
					t.Fatal(err)
				}
				change := func() error { _, err := s.LoadOrCreate(); return err }
				if before != nil {
					mustImport(t, s, before)
					change = func() error { _, err := s.Rotate(); return err }
				}
				for i := range full {
					os.WriteFile(filepath.Join(s.dir, fmt.Sprint("filler", i)), filler, 0o600)
				}
				err := change()
				if err != nil {
					failed++
					refused(t, err, syscall.ENOSPC, "free some and try again")
					same(t, s, before)
					for i := range full {
						os.Remove(filepath.Join(s.dir, fmt.Sprint("filler", i)))
					}
					err = change()
				} else {
					done++
				}
				if err != nil {
					t.Errorf("with %s, after making room: %v", limit, err)
				}
				mustLoad(t, s)
				if err := unix.Unmount(s.dir, 0); err != nil {
					t.Error(err)
				}
			}
			t.Logf("%s: %d full, %d not", limit, failed, done)
			if failed == 0 || done == 0 {
				t.Errorf("%s: %d failed, %d did not", limit, failed, done)
			}
		}
	}
}

func TestAReadOnlyDiskLeavesTheOldKey(t *testing.T) {
	if !namespace(t) {
		return
	}
	for _, before := range []*Identity{nil, fixed(1)} {
		s := Open(t.TempDir())
		if err := unix.Mount("none", s.dir, "tmpfs", 0, "mode=0700"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(s.dir, 0) })
		if before != nil {
			mustImport(t, s, before)
		}
		if err := unix.Mount("none", s.dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=0700"); err != nil {
			t.Fatal(err)
		}
		if before != nil {
			if _, err := s.LoadOrCreate(); err != nil {
				t.Errorf("the key cannot be read: %v", err)
			}
			_, err := s.Rotate()
			refused(t, err, syscall.EROFS, "--state")
		} else {
			_, err := s.LoadOrCreate()
			refused(t, err, syscall.EROFS, "--state")
			_, err = Open(filepath.Join(s.dir, "below")).LoadOrCreate()
			refused(t, err, syscall.EROFS, "--state")
		}
		same(t, s, before)
	}
}

func TestItWorksWhereASharedMappingIsRefused(t *testing.T) {
	if !namespace(t) {
		return
	}
	s := Open(t.TempDir())
	disk := mountFuse(t, s.dir)

	// It is such a filesystem.
	probe, err := os.OpenFile(filepath.Join(s.dir, "probe"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := probe.Write(make([]byte, 8192)); err != nil {
		t.Fatal(err)
	}
	for _, protection := range []int{unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE} {
		if _, err := unix.Mmap(int(probe.Fd()), 0, 4096, protection, unix.MAP_SHARED); err == nil {
			t.Fatal("a shared mapping is allowed")
		}
	}
	probe.Close()
	if db, err := bbolt.Open(filepath.Join(s.dir, "bolt"), 0o600, nil); err == nil {
		db.Close()
		t.Fatal("bbolt works in place")
	}

	first, err := s.LoadOrCreate()
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, first)
	second, err := s.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, second)
	mustImport(t, s, fixed(64))
	same(t, s, fixed(64))

	// And a broken one.
	rotate := func() error { _, err := s.Rotate(); return err }
	for op, name := range map[uint32]string{
		fuseCreate: "create", fuseSetattr: "chmod", fuseWrite: "write", fuseFsync: "fsync", fuseFlush: "close", fuseRename: "rename",
	} {
		called := disk.calls(op)
		disk.failing(op, unix.EIO, func() { refused(t, rotate(), syscall.EIO, "replace the medium") })
		if disk.calls(op) == called {
			t.Errorf("%s was not called", name)
		}
		same(t, s, fixed(64))
	}
	disk.failing(fuseRead, unix.EIO, func() {
		for _, do := range verbs(s) {
			damaged(t, s, do())
		}
	})
	same(t, s, fixed(64))
	disk.failing(fuseFsyncdir, unix.EIO, func() { refused(t, rotate(), syscall.EIO, "") })
	mustLoad(t, s)
	disk.failing(fuseFsyncdir, unix.EINVAL, func() {
		if err := rotate(); err != nil {
			t.Errorf("on a filesystem that cannot sync a folder: %v", err)
		}
	})
	mustLoad(t, s)
}
