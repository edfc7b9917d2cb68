// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package main

import (
	"errors"
	"io"
)

func recipientKey(string, bool, io.Writer) error {
	return errors.New("key recipient: this smallest build receives no tracers")
}
