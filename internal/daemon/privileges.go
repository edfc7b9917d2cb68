// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/overflowd/overflowd/internal/config"
)

// usualUser is the one that packages make.
const usualUser = "overflowd"

// dropPrivileges becomes the user, if the program was started as root, and keeps
// those capabilities only: see limitCapabilities. The folder of the key is made and handed over to the
// user before, and so is the status socket, if there is one. Who was started as
// another user gives up the other capabilities, if he has any.
func dropPrivileges(name, stateDir string, status *listener, keep, rest capabilities, logger *log.Logger) error {
	if os.Geteuid() != 0 {
		if name != "" {
			return fmt.Errorf("--user %s: only root can become another user", name)
		}
		if err := limitCapabilities(keep, rest); err != nil && !errors.Is(err, errThreads) {
			return err
		}
		return nil
	}
	named := name != ""
	if !named {
		name = usualUser
	}
	u, err := user.Lookup(name)
	if err != nil {
		if named {
			return fmt.Errorf("--user: %w", err)
		}
		return nil // as a newcomer's first try on a server
	}
	uid, gid, err := ids(u)
	if err != nil {
		return err
	}
	if err := handOver(stateDir, uid, gid); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("hand %s over to user %s: %w: free some, and room for two copies of the key", stateDir, name, err)
		}
		return fmt.Errorf("hand %s over to user %s: %w", stateDir, name, err)
	}
	if status != nil {
		path := status.file.Name()
		err := os.Lchown(path, uid, gid)
		if path == config.StatusSocket() { // whose folder is ours too: the socket is removed at the end
			err = errors.Join(err, os.Lchown(filepath.Dir(path), uid, gid))
		}
		if err != nil {
			return fmt.Errorf("hand the status socket over to user %s: %w", name, err)
		}
	}
	if keep|rest != 0 {
		if err := keepCapabilities(); errors.Is(err, errThreads) {
			logger.Printf("an interface that goes will not be captured again, and connections not be looked up: %v", err)
		} else if err != nil {
			return err
		}
	}
	err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid))
	if err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	if err := limitCapabilities(keep, rest); err != nil && !errors.Is(err, errThreads) {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	logger.Printf("running as user %s", name)
	return nil
}

// ids returns the numbers of a user who is not root, and of his group.
func ids(u *user.User) (uid, gid int, err error) {
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, fmt.Errorf("--user %s: %w", u.Username, err)
	}
	if uid == 0 {
		return 0, 0, fmt.Errorf("--user %s is root", u.Username)
	}
	return uid, gid, nil
}

func handOver(dir string, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := give(dir, uid, gid); err != nil {
		return err
	}
	err := give(filepath.Join(dir, "identity.db"), uid, gid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// give changes the owner of what has another: each change is a write to the flash, and
// an overlay that was full when it was mounted is read-only.
func give(name string, uid, gid int) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && int(sys.Uid) == uid && int(sys.Gid) == gid {
		return nil
	}
	return os.Lchown(name, uid, gid)
}
