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
	const name = "overflowd-identity"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3; from then on sysctl vm.memfd_noexec may demand it
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("create a file in RAM: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, fmt.Errorf("write a file in RAM: %w", err)
	}
	return f, nil
}
