// SPDX-License-Identifier: BSD-3-Clause

// Package machine boots boards in QEMU for tests: a kernel that board/kernel builds, an
// init that does what is asked for (package control), and the files of the packages of
// OpenWrt on a flash of its own.
package machine

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Boards are all, those first that break first.
var Boards = []string{"malta-be", "malta-le", "armv7", "arm64", "x86-64"}

// A Board is a kind of machine: what its file board says.
type Board struct {
	Name                                          string
	GoArch, Packages, QEMU, Console, Flash, Cross string
	NAND                                          bool // its kernel has simulated NAND flash
	MMIO                                          bool // virtio devices are at addresses that the device tree has, and not at PCI

	// Image is of OpenWrt, if it is to boot that: see UseImage. It has a driver for
	// the ImageCard, and the interface eth ImageLAN is its LAN's.
	Image, ImageCard string
	ImageLAN         int

	dir      string // of the sources of boards
	packages string // to install in the image
	kernel   func() (string, error)
	init     func() (string, error)
	agent    func() (string, error)
}

// Open reads the description of a board below the folder dir, that of boards.
func Open(dir, name string) (*Board, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, name, "board"))
	if err != nil {
		return nil, fmt.Errorf("no such board: %w", err)
	}
	b := &Board{Name: name, dir: dir, ImageCard: "virtio-net-pci"}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		value = strings.Trim(value, `"`)
		switch key {
		case "GOARCH":
			b.GoArch = value
		case "PACKAGES":
			b.Packages = value
		case "QEMU":
			b.QEMU = value
		case "CONSOLE":
			b.Console = value
		case "FLASH":
			b.Flash = value
		case "VIRTIO":
			b.MMIO = value == "mmio"
		case "NAND":
			b.NAND = value == "simulated"
		case "OPENWRT_CARD":
			b.ImageCard = value
		case "OPENWRT_LAN":
			if b.ImageLAN, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		case "CROSS":
			b.Cross = value
		}
	}
	b.kernel = sync.OnceValues(b.buildKernel)
	b.init = sync.OnceValues(b.buildInit)
	b.agent = sync.OnceValues(b.buildAgent)
	return b, nil
}

// Kernel returns the folder of the board's kernel and its modules, which takes
// minutes unless the cache has it.
func (b *Board) Kernel() (string, error) { return b.kernel() }

func (b *Board) buildKernel() (string, error) {
	c := exec.Command(filepath.Join(b.dir, "kernel"), b.Name)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("build the kernel of %s: %w", b.Name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// buildInit returns the initramfs: init and the kernel's modules.
func (b *Board) buildInit() (string, error) { return b.initWith(nil) }

// initWith returns one that has other files, too.
func (b *Board) initWith(others map[string]string) (string, error) {
	kernel, err := b.Kernel()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "overflowd-init")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "init")
	if err := b.build("init", program); err != nil {
		return "", err
	}
	files := map[string]string{"init": program}
	maps.Copy(files, others)
	modules, err := filepath.Glob(filepath.Join(kernel, "*.ko"))
	if err != nil {
		return "", err
	}
	for _, m := range modules {
		files["modules/"+filepath.Base(m)] = m
	}
	image := filepath.Join(dir, "initramfs")
	return image, initramfs(image, files)
}

// buildAgent returns init, which is to run in an image of OpenWrt.
func (b *Board) buildAgent() (string, error) {
	dir, err := os.MkdirTemp("", "overflowd-agent")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "agent")
	return program, b.build("init", program)
}

func (b *Board) build(what, out string) error {
	c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./"+what)
	c.Dir = b.dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.GoArch, "GOMIPS=softfloat", "GOARM=7")
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w: %s", what, b.Name, err, said)
	}
	return nil
}
