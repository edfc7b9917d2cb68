// SPDX-License-Identifier: BSD-3-Clause

// Package board tests the program on the processors, kernels and flash of routers:
// see package machine.
package board

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/overflowd/overflowd/board/machine"
	"github.com/overflowd/overflowd/internal/netns"
)

// packages are those of make openwrt.
const packages = "../dist/openwrt"

// names are those of all boards, or of those of the environment's BOARDS.
func names() []string {
	if words := strings.Fields(os.Getenv("BOARDS")); len(words) > 0 {
		return words
	}
	return machine.Boards
}

// each runs a test on all boards.
func each(t *testing.T, test func(t *testing.T, b *machine.Board)) {
	t.Helper()
	eachWith(t, "", func(*machine.Board) bool { return true }, test)
}

// eachNOR runs a test on those of them that have NOR flash: a disk stands for it on the
// others, which the kernel writes to when it likes.
func eachNOR(t *testing.T, test func(t *testing.T, b *machine.Board)) {
	t.Helper()
	eachWith(t, "NOR flash", func(b *machine.Board) bool { return b.Flash == "pflash" }, test)
}

// eachWith runs a test on those of them that have something, and says which have not. It
// runs beside those of other boards, as soon as its board has a kernel.
func eachWith(t *testing.T, what string, has func(b *machine.Board) bool, test func(t *testing.T, b *machine.Board)) {
	t.Helper()
	t.Parallel()
	kernels(t)
	tested := 0
	for _, name := range names() {
		b := board(t, name)
		if !has(b) {
			t.Logf("not run on %s, which has no %s", name, what)
			continue
		}
		tested++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			<-ready[name]
			defer turn(t)()
			test(t, b)
		})
	}
	if tested == 0 {
		t.Skip("none of these boards has " + what)
	}
}

// A board takes one processor, and waits now and then.
var turns = make(chan bool, 3)

// turn waits for one, and returns what ends it and tells how long it was. go test would
// count those that wait for a kernel, and is told to run all at a time.
func turn(t testing.TB) (end func()) {
	turns <- true
	began := time.Now()
	return func() {
		<-turns
		t.Logf("took %.1f s", time.Since(began).Seconds())
	}
}

// pause sleeps in a turn, and lets others have theirs.
func pause(d time.Duration) {
	<-turns
	time.Sleep(d)
	turns <- true
}

// ready tells that the kernel of a board is built, or cannot be: its tests say so.
var ready = map[string]chan bool{}

// kernels builds those of all boards, one by one, while those are tested that have one.
func kernels(t *testing.T) {
	mu.Lock()
	defer mu.Unlock()
	if len(ready) > 0 {
		return
	}
	for _, name := range names() {
		ready[name] = make(chan bool)
	}
	go func() {
		for _, name := range names() {
			if b, err := machine.Open(".", name); err == nil && os.Getenv("OPENWRT") == "" {
				b.Kernel()
			}
			close(ready[name])
		}
	}()
}

// boards keeps what was built for one, and roots the files of roots.
var (
	mu     sync.Mutex
	boards = map[string]*machine.Board{}
	roots  = map[string]string{}
)

func board(t testing.TB, name string) *machine.Board {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if b := boards[name]; b != nil {
		return b
	}
	b, err := machine.Open(".", name)
	if err != nil {
		t.Fatal(err)
	}
	if image := os.Getenv("OPENWRT"); image != "" {
		netns.Need(t, strings.Fields(b.QEMU)[0])
		if err := b.UseImage(image, packages); err != nil {
			t.Fatalf("OPENWRT: %v", err)
		}
	} else {
		netns.Need(t, strings.Fields(b.QEMU)[0], "mksquashfs", b.Cross+"gcc")
	}
	boards[name] = b
	return b
}

// squashfs returns the file of a root with a package.
func squashfs(t testing.TB, b *machine.Board, name string) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	key := b.Packages + name
	if roots[key] == "" {
		image, err := b.Squashfs(packages, name)
		if err != nil {
			t.Fatal(err)
		}
		roots[key] = image
	}
	return roots[key]
}

// options are those of a router of 64 MiB with a package and an empty flash, or of an
// image of OpenWrt with the package.
func options(t testing.TB, b *machine.Board, name string) machine.Options {
	t.Helper()
	if b.Image != "" {
		return machine.Options{Package: name}
	}
	o := machine.Options{Memory: 64, Squashfs: squashfs(t, b, name), Flash: filepath.Join(t.TempDir(), "flash")}
	if err := b.NewFlash(o.Squashfs, o.Flash); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, r := range roots {
		os.Remove(r)
	}
	os.Exit(code)
}
