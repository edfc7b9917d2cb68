// SPDX-License-Identifier: BSD-3-Clause

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Shell boots a board with a prompt at its console, which is our standard input and
// output, in the root of a router with a package and an empty flash. It returns when the
// board is off.
func (b *Board) Shell(packages, name string) error {
	dir, err := os.MkdirTemp("", "overflowd-shell")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kernel, err := b.Kernel()
	if err != nil {
		return err
	}
	program := filepath.Join(dir, "sh")
	if err := b.build("sh", program); err != nil {
		return err
	}
	init, err := b.initWith(map[string]string{"sh": program})
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(init))
	o := &Options{Memory: 128, Flash: filepath.Join(dir, "flash")}
	if o.Squashfs, err = b.Squashfs(packages, name); err != nil {
		return err
	}
	defer os.Remove(o.Squashfs)
	if err := b.NewFlash(o.Squashfs, o.Flash); err != nil {
		return err
	}
	rom, data := b.flashes()
	args := append(b.command(kernel, init, fmt.Sprintf("shell=%s,%s", rom, data), o), "-serial", "mon:stdio",
		"-netdev", "user,id=net0", "-device", b.card(0)+",netdev=net0")
	c := exec.Command(args[0], args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c.Run()
}
