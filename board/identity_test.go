// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
	"github.com/overflowd/overflowd/internal/tracer"
)

// makeKey has the program make a tracer, and with it a key if there is none, and
// returns the key that it is signed with.
func makeKey(t testing.TB, m *machine.Machine, packets []byte) string {
	t.Helper()
	m.Do(control.Request{Write: &control.Write{Path: "/tmp/packets", Data: packets}})
	line := m.Run("/usr/bin/overflowd", "-f", "/tmp/packets", "--rate", "1", "--state", "/etc/overflowd")
	signed, err := tracer.ParseLine([]byte(strings.TrimSpace(line)))
	if err == nil {
		err = signed.Verify()
	}
	if err != nil {
		t.Fatalf("the tracer: %v: %s", err, line)
	}
	return signed.Key.String()
}

// shown returns the key of a router and those that it succeeds. It is nothing if there
// is none, and the program says so.
func shown(t testing.TB, m *machine.Machine) (keys []string) {
	t.Helper()
	a := m.Do(control.Request{Run: &control.Run{Root: machine.Root, Args: []string{"/usr/bin/overflowd", "key", "show", "--state", "/etc/overflowd"}}})
	if a.Code == 1 && strings.Contains(string(a.Err), "no key yet") {
		return nil
	}
	if a.Code != 0 {
		t.Fatalf("key show: exit %d: %s", a.Code, a.Err)
	}
	for line := range strings.Lines(string(a.Out)) {
		if words := strings.Fields(line); words[0] == "key" || words[0] == "endorsed" {
			keys = append(keys, words[min(len(words)-1, map[string]int{"key": 1, "endorsed": 2}[words[0]])])
		}
	}
	return keys
}

func one(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(recording(t, 1, 1))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// used boots a router once: the first time, JFFS2 writes to each block that it is empty,
// and something in /etc is changed. That moves the folder, which JFFS2 does not do in
// one step: a power cut then leaves a folder that nobody can read.
func used(t testing.TB, b *machine.Board, o machine.Options) {
	t.Helper()
	m := b.Start(t, o)
	m.MountRoot(b)
	m.Do(control.Request{Write: &control.Write{Path: machine.Root + "/etc/.booted"}})
	time.Sleep(3 * time.Second) // for the thread that marks the blocks
	m.Halt()
}

// logFlash has a machine keep what it writes to its flash, and returns what tells how
// many writes there were.
func logFlash(t testing.TB, o *machine.Options) (logged func() int) {
	t.Helper()
	o.FlashLog = filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(o.FlashLog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() int {
		n, err := machine.Logged(o.FlashLog)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// A cut is what was on the flash after so many writes.
type cut struct {
	after   int
	changed int // bytes, by the last of them; 0 of the first cut
	image   []byte
}

// options are those of a machine that boots with it.
func (c *cut) options(t testing.TB, o machine.Options) machine.Options {
	t.Helper()
	flash := filepath.Join(t.TempDir(), "flash")
	if err := os.WriteFile(flash, c.image, 0o600); err != nil {
		t.Fatal(err)
	}
	return machine.Options{Memory: o.Memory, Squashfs: o.Squashfs, Flash: flash}
}

// replay returns the cuts after each write from one to another.
func replay(t testing.TB, path string, base []byte, from, to int) (cuts []cut) {
	t.Helper()
	log, err := machine.OpenWriteLog(path)
	if err != nil {
		t.Fatal(err)
	}
	image, changed := bytes.Clone(base), 0
	for n := 0; ; n++ {
		if n == from {
			changed = 0
		}
		if n >= from {
			cuts = append(cuts, cut{n, changed, bytes.Clone(image)})
		}
		if n == to {
			return cuts
		}
		more := false
		if changed, more, err = log.Apply(image); err != nil || !more {
			t.Fatalf("write %d of %d: %v", n, to, err)
		}
	}
}

// The flash that a key may take: what making it writes, and what replacing it does.
const mostWritten = 8 << 10

// TestKeyOutlivesAPowerCutAtEveryWrite makes a key and rotates it, and boots a router
// with what was on the flash after each single write of that: a key whose making was
// acknowledged is there, and never is there another that does not succeed it.
func TestKeyOutlivesAPowerCutAtEveryWrite(t *testing.T) {
	eachNOR(t, func(t *testing.T, b *machine.Board) {
		packets := one(t)
		o := options(t, b, "overflowd-mini")
		used(t, b, o)
		base, err := os.ReadFile(o.Flash)
		if err != nil {
			t.Fatal(err)
		}

		logged := logFlash(t, &o)
		m := b.Start(t, o)
		m.MountRoot(b)
		before := logged()
		first := makeKey(t, m, packets)
		made := logged()
		m.Run("/usr/bin/overflowd", "key", "rotate", "--state", "/etc/overflowd")
		rotated := logged()
		keys := shown(t, m)
		if len(keys) != 2 || keys[1] != first || keys[0] == first {
			t.Fatalf("after the rotation the keys are %v, the first was %s", keys, first)
		}
		if makeKey(t, m, packets) != keys[0] {
			t.Error("the second key does not sign")
		}
		if idle := logged(); idle != rotated {
			t.Errorf("%d writes to the flash for a tracer with a key that was there", idle-rotated)
		}
		m.Cut()

		cuts := replay(t, o.FlashLog, base, before, rotated)
		making, rotating := 0, 0
		for _, c := range cuts {
			if c.after > made {
				rotating += c.changed
			} else {
				making += c.changed
			}
		}
		t.Logf("%s: %d bytes of flash in %d writes make a key, %d in %d rotate it", b.Name, making, made-before, rotating, rotated-made)
		if made == before || rotated == made || making > mostWritten || rotating > mostWritten {
			t.Errorf("more than the %d bytes of flash that are allowed, or none", mostWritten)
		}
		for _, c := range cuts {
			t.Run(fmt.Sprintf("cut after write %d of %d", c.after-before, rotated-before), func(t *testing.T) {
				t.Parallel()
				defer turn(t)()
				m := b.Start(t, c.options(t, o))
				m.MountRoot(b)
				got := shown(t, m)
				switch {
				case len(got) == 2 && got[0] == keys[0] && got[1] == first && c.after >= made:
				case len(got) == 1 && got[0] == first && c.after < rotated:
				case len(got) == 0 && c.after < made:
				default:
					t.Fatalf("the keys are %v; %s was the first, and %s the second", got, first, keys[0])
				}
				signs := makeKey(t, m, packets)
				if len(got) > 0 && signs != got[0] {
					t.Errorf("%s signs where the key is %s", signs, got[0])
				}
				if again := shown(t, m); again[0] != signs || len(got) > 0 && len(again) != len(got) {
					t.Errorf("the keys are %v after %s signed", again, signs)
				}
				if left := m.Read("/overlay/upper/etc/overflowd"); left != "identity.db" && len(got) == 0 {
					t.Errorf("left on the flash: %s", left)
				}
				m.Cut()
			})
		}
	})
}

func TestKeyOutlivesAFullFlashAndAReboot(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		packets := one(t)
		o := options(t, b, "overflowd-mini")
		m := b.Start(t, o)
		m.MountRoot(b)
		fill := func() {
			for size := 64 << 10; size >= 64; size /= 2 {
				for {
					noise := make([]byte, size) // that does not compress
					for i := range noise {
						noise[i] = byte(i*i>>3 ^ i*7919>>5 ^ size)
					}
					if _, err := m.Ask(control.Request{Write: &control.Write{Path: "/overlay/upper/filler", Data: noise, Mode: 0o600, Add: true}}); err != nil {
						break
					}
				}
			}
		}
		full := func(args ...string) string {
			a := m.Do(control.Request{Run: &control.Run{Root: machine.Root, Args: args}})
			if a.Code == 0 || !strings.Contains(string(a.Err), "no space left") || !strings.Contains(string(a.Err), "free some") {
				t.Errorf("%s on a full flash: exit %d: %s%s", strings.Join(args, " "), a.Code, a.Out, a.Err)
			}
			return string(a.Err)
		}
		fill()
		m.Do(control.Request{Write: &control.Write{Path: "/tmp/packets", Data: packets}})
		full("/usr/bin/overflowd", "-f", "/tmp/packets", "--rate", "1", "--state", "/etc/overflowd")
		if keys := shown(t, m); len(keys) > 0 {
			t.Errorf("on a full flash there is a key: %v", keys)
		}
		m.Do(control.Request{Run: &control.Run{Args: []string{"/init", "remove", "/overlay/upper/filler"}}})
		first := makeKey(t, m, packets)
		fill()
		t.Log(full("/usr/bin/overflowd", "key", "rotate", "--state", "/etc/overflowd"))
		if keys := shown(t, m); len(keys) != 1 || keys[0] != first {
			t.Errorf("after a rotation on a full flash the keys are %v; the first was %s", keys, first)
		}
		if b.Flash == "pflash" {
			m.Cut()
		} else {
			m.Halt()
		}

		m = b.Start(t, o)
		m.MountRoot(b)
		if keys := shown(t, m); len(keys) != 1 || keys[0] != first {
			t.Errorf("after a reboot the keys are %v; the first was %s", keys, first)
		}
		if signs := makeKey(t, m, packets); signs != first {
			t.Errorf("%s signs, the key is %s", signs, first)
		}
	})
}

// TestKeyIsMadeOnUBIFS, which routers with NAND flash have.
func TestKeyIsMadeOnUBIFS(t *testing.T) {
	eachWith(t, "NAND flash", func(b *machine.Board) bool { return b.NAND }, func(t *testing.T, b *machine.Board) {
		packets := one(t)
		m := b.Start(t, options(t, b, "overflowd-mini"))
		m.MountRoot(b)
		// 64 MiB of 2 KiB pages.
		m.Do(control.Request{Module: "nandsim first_id_byte=0x20 second_id_byte=0xa2 third_id_byte=0x00 fourth_id_byte=0x15"})
		device := -1
		for line := range strings.Lines(m.Read("/proc/mtd")) {
			if strings.Contains(line, "NAND simulator") {
				fmt.Sscanf(line, "mtd%d:", &device)
			}
		}
		if device < 0 {
			t.Fatalf("no NAND flash in %s", m.Read("/proc/mtd"))
		}
		m.Do(control.Request{UBI: &control.UBI{Device: device, Volume: "rootfs_data", Size: 16 << 20}})
		state := machine.Root + "/etc/overflowd"
		m.Do(control.Request{Mount: &control.Mount{Source: "ubi0:rootfs_data", Target: state, Type: "ubifs"}})
		key := makeKey(t, m, packets)
		m.Run("/usr/bin/overflowd", "key", "rotate", "--state", "/etc/overflowd")
		m.Do(control.Request{Mount: &control.Mount{Target: state}})
		m.Do(control.Request{Mount: &control.Mount{Source: "ubi0:rootfs_data", Target: state, Type: "ubifs"}})
		if keys := shown(t, m); len(keys) != 2 || keys[1] != key {
			t.Errorf("the keys are %v, the first was %s", keys, key)
		}
	})
}

// TestSteadyStateWritesNothingToTheFlash while the daemon watches, sends and is asked.
func TestSteadyStateWritesNothingToTheFlash(t *testing.T) {
	eachNOR(t, func(t *testing.T, b *machine.Board) {
		o := options(t, b, "overflowd-mini")
		used(t, b, o)
		logged := logFlash(t, &o)
		m, n := newRouter(t, b, o)
		d := start(m, capturing)
		n.send(host4, far4, 60_000, func() bool { return len(n.to(host4)) > 0 })
		before := logged()
		n.send(host6, far6, 60_000, func() bool { return len(n.to(host6)) > 0 })
		if len(n.to(host6)) == 0 {
			t.Errorf("no tracer to %s: %s", host6, m.Run("/usr/bin/overflowd", "status"))
		}
		if after := logged(); after != before {
			t.Errorf("%d writes to the flash of a tracer", after-before)
		}
		d.Stop(unix.SIGTERM)
		if after := logged(); after != before {
			t.Errorf("%d writes to the flash at the end", after-before)
		}
	})
}
