// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ramFile returns an anonymous file in RAM with the content given. Nothing of
// the key is left behind when it is closed.
func ramFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("overflowd-identity", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a file in RAM: %w", err)
	}
	f := os.NewFile(uintptr(fd), "identity in RAM")
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// dup returns a second handle of the file, as bbolt closes the one it gets.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
