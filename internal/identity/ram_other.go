// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package identity

import "os"

// ramFile returns a temporary file without a name, with the content given:
// systems other than Linux have no files in RAM, but filesystems on which bbolt
// works.
func ramFile(content []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "overflowd")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
