// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/tracer"
)

// newWire is a lab of a source and a router, without IPv6, so that nothing but
// what the source sends is on the wire:
//
//	src 45.83.0.2 -- router, which takes what is for 203.0.113.0/24 to nowhere
func newWire(t *testing.T) *lab {
	netns.Need(t, "ip")
	pid := os.Getpid()
	l := &lab{t: t, src: fmt.Sprintf("src%d", pid), router: fmt.Sprintf("router%d", pid)}
	for _, ns := range []string{l.src, l.router} {
		l.namespace(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	}
	l.run("ip", "-n", l.router, "route", "add", "blackhole", "203.0.113.0/24")
	l.wire()
	return l
}

func (l *lab) wire() {
	l.link(l.src, "45.83.0.2/24", "", l.router, "45.83.0.1/24", "")
	l.run("ip", "-n", l.src, "route", "add", "default", "via", "45.83.0.1")
}

// watching is the program that captures on the router's end of the wire.
type watching struct {
	*lab
	program, socket, stdout, stderr string
	cmd                             *exec.Cmd
}

func (l *lab) watch(args ...string) *watching {
	l.t.Helper()
	open, dir := openFolder(l.t), l.t.TempDir()
	w := &watching{lab: l, program: buildRelease(l.t), socket: filepath.Join(open, "socket"),
		stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr")}
	var files [2]*os.File
	for i, name := range []string{w.stdout, w.stderr} {
		var err error
		if files[i], err = os.Create(name); err != nil {
			l.t.Fatal(err)
		}
		defer files[i].Close()
	}
	w.cmd = l.start(l.router, files[0], files[1], w.program, append([]string{"-i", "to-src", "--user", "nobody",
		"--state", filepath.Join(open, "state"), "--status", w.socket}, args...)...)
	w.until(10*time.Second, "it captures", func() bool { return w.says("capturing on to-src") })
	return w
}

func (w *watching) until(limit time.Duration, what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s; the program says:\n%s", limit, what, w.said())
		}
	}
}

func (w *watching) said() string {
	b, err := os.ReadFile(w.stderr)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func (w *watching) says(text string) bool { return strings.Contains(w.said(), text) }

// observation is what the status tells.
type observation struct {
	Captured struct{ Packets, Overrun, Thin int }
	Selected struct{ Records, Lost int }
	Tracers  struct{ Printed int }
}

func (w *watching) status() (o observation) {
	w.t.Helper()
	out, err := exec.Command(w.program, "status", "--json", "--status", w.socket).Output()
	if err == nil {
		err = json.Unmarshal(out, &o)
	}
	if err != nil {
		w.t.Fatalf("status: %v: %s; the program says:\n%s", err, out, w.said())
	}
	return o
}

// end ends the program.
func (w *watching) end() {
	w.t.Helper()
	w.cmd.Process.Signal(syscall.SIGTERM)
	if err := w.cmd.Wait(); err != nil {
		w.t.Fatalf("%v; the program says:\n%s", err, w.said())
	}
}

// TestTheRateOfWhatIsCaptured: of the packets on an interface the share that was
// asked for is selected, whether all of them are captured or 1 in 10.
func TestTheRateOfWhatIsCaptured(t *testing.T) {
	const sent, rate = 200_000, 0.01
	for _, thin := range []int{1, 10} {
		t.Run(fmt.Sprintf("1 in %d", thin), func(t *testing.T) {
			l := newWire(t)
			w := l.watch("-r", "1/100", "--thin", strconv.Itoa(thin))
			blast := l.helper(l.src, "blast", "203.0.113.9:9999", strconv.Itoa(sent), "100", "500")
			if !blast.Scan() || blast.Text() != "done 0" {
				t.Fatalf("the packets were not sent: %s", blast.Text())
			}
			// Captured is 1 in N of them, each counted N times.
			sigma := math.Sqrt(sent * float64(thin-1))
			last := -1
			w.until(10*time.Second, "all is read", func() bool {
				time.Sleep(200 * time.Millisecond) // longer than a block of the ring waits
				before := last
				last = w.status().Captured.Packets
				return last == before
			})
			o := w.status()
			t.Logf("%d packets captured, want %d ± %.0f", o.Captured.Packets, sent, sigma)
			if math.Abs(float64(o.Captured.Packets-sent)) > 5*sigma || o.Captured.Packets%thin != 0 || o.Captured.Thin != thin ||
				o.Captured.Overrun != 0 || o.Selected.Lost != 0 {
				t.Errorf("%d packets were sent, the status is %+v", sent, o)
			}
			w.end()

			f, err := os.Open(w.stdout)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			selected := 0
			for lines := bufio.NewScanner(f); lines.Scan(); {
				signed, err := tracer.ParseLine(lines.Bytes())
				if err != nil {
					t.Fatalf("%v: %s", err, lines.Text())
				}
				m, err := signed.Open()
				if err != nil {
					t.Fatalf("%v: %s", err, lines.Text())
				}
				if m.Rate != rate || m.Flow.Interval != uint32(thin) || m.Flow.DstPort != 9999 || m.Flow.Packets < 1 || m.Flow.Packets > sent/uint64(thin)*2 {
					t.Fatalf("printed: %s", signed.Message)
				}
				selected += int(m.Selected)
			}
			want, sigma := sent*rate, math.Sqrt(sent*rate*(1-rate))
			t.Logf("%d selected, want %.0f ± %.0f", selected, want, sigma)
			if math.Abs(float64(selected)-want) > 5*sigma || selected != o.Selected.Records {
				t.Errorf("%d packets selected, want %.0f ± %.0f; the status is %+v", selected, want, sigma, o)
			}
		})
	}
}

// TestAnInterfaceThatGoesAndComesAgain, as a dial-up does, is captured on within
// a second, by a program that is root no longer.
func TestAnInterfaceThatGoesAndComesAgain(t *testing.T) {
	l := newWire(t)
	w := l.watch("-r", "1/10")
	l.helper(l.src, "blast", "203.0.113.9:9999", "1000000", "100", "20") // for minutes
	w.until(10*time.Second, "packets come", func() bool { return w.status().Captured.Packets > 100 })

	for range 2 {
		l.run("ip", "-n", l.router, "link", "del", "to-src")
		w.until(5*time.Second, "it waits", func() bool {
			return strings.Count(w.said(), "waiting for the interface to-src: ") > strings.Count(w.said(), "capturing on to-src again")
		})
		before := w.status()
		l.wire()
		there := time.Now()
		w.until(time.Second, "packets are captured", func() bool { return w.status().Captured.Packets > before.Captured.Packets })
		t.Logf("%d packets before, captured again within %v", before.Captured.Packets, time.Since(there))
		w.until(5*time.Second, "it tells so", func() bool {
			return strings.Count(w.said(), "waiting for the interface to-src: ") == strings.Count(w.said(), "capturing on to-src again")
		})
		w.until(5*time.Second, "tracers are printed", func() bool { return w.status().Tracers.Printed > before.Tracers.Printed })
	}
	w.end()
	if !w.says("running as user nobody") {
		t.Errorf("the program says:\n%s", w.said())
	}
}

// TestAnInterfaceThatCannotBeReadIsSaid although it came later.
func TestAnInterfaceThatCannotBeReadIsSaid(t *testing.T) {
	l := newWire(t)
	w := l.watch("-i", "radio")
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(fd)
	q, err := unix.NewIfreq(fmt.Sprintf("radio%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	q.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, q), unix.IoctlSetInt(fd, unix.TUNSETLINK, unix.ARPHRD_IEEE80211)); err != nil {
		t.Fatal(err)
	}
	l.run("ip", "link", "set", "dev", q.Name(), "netns", l.router, "name", "radio")
	w.until(5*time.Second, "it cannot be read", func() bool { return w.says("radio: the hardware type 801 is not read") })
	w.end()
}
