// SPDX-License-Identifier: BSD-3-Clause

//go:build !mips && !mipsle && !mips64 && !mips64le

package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func (l *lab) listen() (c *Listener) {
	l.t.Helper()
	l.in(l.router, func() (err error) { c, err = Listen(); return err })
	l.t.Cleanup(func() { c.Close() })
	return c
}

// forget ends all connections.
func (l *lab) forget() {
	l.t.Helper()
	l.exec("conntrack", "-F")
}

// receive calls Receive until there are n connections.
func receive(t *testing.T, l *Listener, n int) map[uint32]Entry {
	t.Helper()
	entries := make(map[uint32]Entry)
	timer := time.AfterFunc(10*time.Second, l.Interrupt)
	defer timer.Stop()
	for len(entries) < n {
		if err := l.Receive(func(e *Entry) { entries[e.ID] = *e }); err != nil {
			t.Fatalf("after %d of %d connections: %v", len(entries), n, err)
		}
	}
	return entries
}

func TestEndedConnectionsComeWithTheirCounters(t *testing.T) {
	l := newLab(t)
	if mode := string(bytes.TrimSpace(l.exec("sysctl", "-n", "net.netfilter.nf_conntrack_events"))); mode == "2" {
		l.talk(l.inner, "tcp", "198.51.100.2:80", []byte("before anyone listened"))
	}
	early := byID(t, l.exec("conntrack", "-L", "-o", "extended,id"))
	c := l.listen()
	l.traffic()
	want := byID(t, l.exec("conntrack", "-L", "-o", "extended,id"))
	for id := range early {
		delete(want, id)
	}
	l.forget()
	got := receive(t, c, len(want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(want) < 12 || len(early) == 0 {
		t.Errorf("only %d connections, and %d before", len(want), len(early))
	}
	if c.Overruns() != 0 || c.Malformed() != 0 {
		t.Errorf("%d overruns, %d malformed messages", c.Overruns(), c.Malformed())
	}
}

// TestPrivilegesAreNeededToListenAndToAsk, but not to be told.
func TestPrivilegesAreNeededToListenAndToAsk(t *testing.T) {
	l := newLab(t)
	end, ended := make(chan bool), make(chan bool) // unbuffered, each closed once
	go func() {
		<-end
		l.forget()
		close(ended)
	}()
	l.in(l.router, func() error {
		c, err := Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		listener, err := Listen()
		if err != nil {
			return err
		}
		defer listener.Close()
		l.talk(l.inner, "udp", "198.51.100.2:53", []byte("hello"))
		var k Entry
		if err := c.Dump(func(e *Entry) error { k = *e; return nil }); err != nil {
			return err
		}

		// As the daemon does, but of this thread alone, which ends with the test.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			return errno
		}
		if _, err := c.Lookup(&k.Original); !errors.Is(err, os.ErrPermission) {
			t.Errorf("Lookup: %v", err)
		}
		if err := c.Dump(func(*Entry) error { return errors.New("an entry") }); !errors.Is(err, os.ErrPermission) {
			t.Errorf("Dump: %v", err)
		} else {
			t.Log(err)
		}
		if _, err := Listen(); !errors.Is(err, os.ErrPermission) {
			t.Errorf("Listen: %v", err)
		} else {
			t.Log(err)
		}
		other, err := Dial()
		if err != nil {
			t.Errorf("Dial: %v", err)
		} else {
			other.Close()
		}
		close(end)
		<-ended
		found := false
		timer := time.AfterFunc(10*time.Second, listener.Interrupt)
		defer timer.Stop()
		for !found {
			if err := listener.Receive(func(e *Entry) { found = found || e.ID == k.ID }); err != nil {
				return fmt.Errorf("receive without privileges: %w", err)
			}
		}
		return nil
	})
}

func TestAFullBufferIsCountedAndNotTheEnd(t *testing.T) {
	l := newNamespace(t, "full")
	c := l.listen()
	l.many(5000)
	l.forget()
	n := 0
	if err := c.Receive(func(*Entry) { n++ }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events were received, %d not", n, c.Overruns())
	if n < 200 || c.Overruns() == 0 || n+int(c.Overruns()) < 5000 {
		t.Errorf("%d events, %d overruns", n, c.Overruns())
	}
	l.many(10)
	l.forget()
	receive(t, c, 10)
	before := c.Overruns()
	c.Close()
	if after := c.Overruns(); after != before {
		t.Errorf("%d overruns before the end, %d after", before, after)
	}
}

func TestEventsDoNotAllocate(t *testing.T) {
	l := newNamespace(t, "events")
	c := l.listen()
	n := 0
	f := func(*Entry) { n++ }
	measure := func(connections int) uint64 {
		least := uint64(1 << 32)
		for range 5 {
			l.many(connections)
			l.forget()
			n = 0
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := c.Receive(f); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if n < connections {
				t.Fatalf("%d of %d events", n, connections)
			}
			least = min(least, after.Mallocs-before.Mallocs)
		}
		return least
	}
	if few, many := measure(1), measure(200); many > few {
		t.Errorf("%d objects for 1 event, %d for 200", few, many)
	}
}

func TestInterruptAndCloseEndReceive(t *testing.T) {
	for name, end := range map[string]func(*Listener){
		"Interrupt": (*Listener).Interrupt,
		"Close":     func(l *Listener) { l.Close() },
	} {
		for _, early := range []bool{false, true} {
			l := newNamespace(t, "end")
			c := l.listen()
			result := make(chan error, 1) // Receive's
			if early {
				end(c)
			}
			go func() { result <- c.Receive(func(*Entry) { t.Error("an event") }) }()
			if !early {
				for stack := make([]byte, 1<<16); !bytes.Contains(stack[:runtime.Stack(stack, true)], []byte("IO wait")); {
					runtime.Gosched()
				}
				end(c)
			}
			if err := <-result; err != net.ErrClosed {
				t.Errorf("%s: %v", name, err)
			}
			if err := c.Receive(func(*Entry) {}); err != net.ErrClosed {
				t.Errorf("%s, and again: %v", name, err)
			}
			l.run("ip", "netns", "del", l.router)
		}
	}
}
