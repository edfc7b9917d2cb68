// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package main

import (
	"fmt"
	"io"

	"github.com/overflowd/overflowd/internal/receiver"
)

// recipientKey shows the key to which others may seal tracers for us, and makes it if
// there is none or it is to be another.
func recipientKey(dir string, rotate bool, stdout io.Writer) error {
	all, err := receiver.SealKeysOf(dir, rotate)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, all.Key())
	return err
}
