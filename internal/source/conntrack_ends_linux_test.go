// SPDX-License-Identifier: BSD-3-Clause

// qemu-user does not pass on netlink of this family.
//go:build !mips && !mipsle && !mips64 && !mips64le

package source

import (
	"context"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/selector"
)

// tracking is a source of connections in a namespace that counts them, with one
// of 3 datagrams, and does not run. say adds a datagram to that connection.
func tracking(t *testing.T) (n *netns.Namespace, c *Conntrack, say func()) {
	t.Helper()
	netns.Need(t, "conntrack", "nft", "sysctl")
	n = netns.New(t)
	n.IP("addr add 203.0.113.1/32 dev lo")
	var conn net.Conn
	err := n.Do(func() (err error) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader("table inet track { chain c { type filter hook output priority 0; ct state new accept; }; }")
		if err := cmd.Run(); err != nil {
			return err
		}
		if err := exec.Command("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1", "net.netfilter.nf_conntrack_events=1").Run(); err != nil {
			return err
		}
		far, err := net.ListenPacket("udp", "203.0.113.1:5000")
		if err != nil {
			return err
		}
		t.Cleanup(func() { far.Close() })
		s, err := selector.New(1e-9)
		if err != nil {
			return err
		}
		c, err = NewConntrack(context.Background(), Tracking{Draw: same(s), Flows: 64, Privileged: func(f func()) { f() }})
		if err != nil {
			return err
		}
		t.Cleanup(c.Close)
		conn, err = net.Dial("udp", "203.0.113.1:5000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	say = func() {
		if _, err := conn.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		say()
	}
	return n, c, say
}

// TestAnEndIsHeardOfAfterTheList: a connection that ended a moment before the
// list is not in it, and its end still waits to be heard of.
func TestAnEndIsHeardOfAfterTheList(t *testing.T) {
	n, c, say := tracking(t)
	c.list()
	say()
	say()
	c.list()
	if got := c.Counters.Packets.Load(); got != 2 {
		t.Fatalf("%d packets", got)
	}
	say()
	if err := n.Do(func() error { return exec.Command("conntrack", "-F").Run() }); err != nil {
		t.Fatal(err)
	}
	c.list()
	err := c.listener.Receive(func(e *conntrack.Entry) { c.count(e, time.Now().UnixMilli(), true) })
	if got := c.Counters.Packets.Load(); err != nil || got != 3 || c.known.Len() != 0 {
		t.Errorf("%d packets, want 3; %d connections are known; %v", got, c.known.Len(), err)
	}
	// Whose end was not heard of is forgotten all the same.
	say()
	c.list()
	if err := n.Do(func() error { return exec.Command("conntrack", "-F").Run() }); err != nil {
		t.Fatal(err)
	}
	c.list()
	c.list()
	if got := c.known.Len(); got != 0 {
		t.Errorf("%d connections are known", got)
	}
}

// TestWhatWasThereBeforeTheFirstListIsNotCounted although the first attempts to
// list it fail.
func TestWhatWasThereBeforeTheFirstListIsNotCounted(t *testing.T) {
	_, c, say := tracking(t)
	privileged := c.o.Privileged
	c.o.Privileged = func(f func()) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have [2]unix.CapUserData
		if err := unix.Capget(&header, &have[0]); err != nil {
			t.Fatal(err)
		}
		less := have
		less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&header, &less[0]); err != nil {
			t.Fatal(err)
		}
		defer unix.Capset(&header, &have[0])
		f()
	}
	if c.list(); c.Failure() == nil {
		t.Fatal("it did not fail")
	}
	c.o.Privileged = privileged
	c.list()
	if got := c.Counters.Packets.Load(); got != 0 || c.Failure() != nil {
		t.Errorf("%d packets of before, %v", got, c.Failure())
	}
	say()
	if c.list(); c.Counters.Packets.Load() != 1 {
		t.Errorf("%d packets, want 1", c.Counters.Packets.Load())
	}
}
