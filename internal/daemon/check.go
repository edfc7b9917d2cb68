// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"syscall"

	"github.com/overflowd/overflowd/internal/config"
)

// Check returns an error if this build cannot do what the configuration says, or a
// file that it names cannot be used. With --user what it reads must be readable for
// that user, whom the program becomes: it is asked by a program of its own.
func Check(c *config.Config) error {
	if err := checkBuild(c); err != nil || c.Suspects == "" {
		return err
	}
	l := list{path: c.Suspects, most: c.MaxSuspects}
	if _, err := l.load(); err != nil {
		return fmt.Errorf("--suspects %s: %w", c.Suspects, withoutPath(err))
	}
	return nil
}

// Become makes the program another user's for good, if root has started it, one is
// named, and there is such a user.
func Become(name string) error {
	if name == "" || os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil
	}
	uid, gid, err := ids(u)
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("become user %s: %w", name, err)
	}
	return nil
}
