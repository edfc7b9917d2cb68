// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package main

import (
	"os"
	"os/exec"
)

// shell runs the image's shell at the console until it ends.
func shell() error {
	c := exec.Command("/bin/sh")
	c.Stdin, c.Stdout, c.Stderr, c.Dir = os.Stdin, os.Stdout, os.Stderr, "/"
	return c.Run()
}
