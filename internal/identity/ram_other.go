// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package identity

import "os"

// ramFile returns a temporary file with the content given: other systems than
// Linux have no files in RAM, but filesystems on which bbolt works.
func ramFile(content []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "overflowd")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func dup(f *os.File) (*os.File, error) { return f, nil }
