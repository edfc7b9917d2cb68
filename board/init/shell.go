// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/overflowd/overflowd/board/control"
)

// shell runs the shell at the console, in the root of a router on those devices, until
// it ends.
func shell(rom, data string) error {
	for _, m := range control.RootMounts(rom, data) {
		if err := mount(&m); err != nil {
			return err
		}
	}
	// Where both roots have it.
	program, err := os.ReadFile("/sh")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/tmp/sh", program, 0o755); err != nil {
		return err
	}
	// What QEMU's own network has: see its option -netdev user.
	if err := link(&control.Link{Name: "eth0", Addresses: []string{"10.0.2.15/24"}, Gateways: []string{"10.0.2.2"}}); err != nil {
		fmt.Printf("init: no network: %v\n", err)
	}
	c := exec.Command("/tmp/sh")
	c.Stdin, c.Stdout, c.Stderr, c.Dir = os.Stdin, os.Stdout, os.Stderr, "/"
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: control.Root}
	return c.Run()
}
