// SPDX-License-Identifier: BSD-3-Clause

// qemu-user does not pass on netlink of this family.
//go:build !mips && !mipsle && !mips64 && !mips64le

package source

import (
	"context"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/selector"
)

// TestRealConnectionsAreCountedToThePacket: some go on, some end, one was there
// before.
func TestRealConnectionsAreCountedToThePacket(t *testing.T) {
	netns.Need(t, "conntrack", "nft")
	n := netns.New(t)
	n.Set("netfilter.nf_conntrack_acct", "1")
	n.IP("addr add 45.83.0.1/32 dev lo")
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", append([]string{"netns", "exec", n.Name}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("nft", "add table ip t; add chain ip t out { type filter hook output priority 0 ; }; add rule ip t out ct state invalid drop")
	s, err := selector.New(1)
	if err != nil {
		t.Fatal(err)
	}
	const sockets, each = 20, 30
	var conns []net.Conn
	send := func(c net.Conn, times int) {
		for range times {
			if _, err := c.Write(make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	hits := make(chan Hit, 1000)
	var c *Conntrack
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = n.Do(func() (err error) {
		sink, err := net.ListenPacket("udp4", "45.83.0.1:9999") // or the answers would be errors
		if err != nil {
			return err
		}
		t.Cleanup(func() { sink.Close() })
		for range sockets {
			conn, err := net.Dial("udp4", "45.83.0.1:9999")
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			conns = append(conns, conn)
		}
		send(conns[0], 1000) // before
		c, err = NewConntrack(ctx, Tracking{Sink: Sink{Hits: hits}, Draw: same(s), Flows: 100, Privileged: func(f func()) { f() }})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for began := false; !began; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		began = c.began
		c.mu.Unlock()
	}
	for _, conn := range conns {
		send(conn, each)
	}
	c.list()
	if got := c.Counters.Packets.Load(); got != sockets*each {
		t.Errorf("%d packets in the list, want %d", got, sockets*each)
	}
	for _, conn := range conns[1:] {
		send(conn, 5)
	}
	run("conntrack", "-D", "-p", "udp")
	for range 300 {
		if c.Counters.Packets.Load() == sockets*each+(sockets-1)*5 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.list()
	if got, want := c.Counters.Packets.Load(), uint64(sockets*each+(sockets-1)*5); got != want {
		t.Errorf("%d packets at the end, want %d", got, want)
	}
	if got, want := c.Counters.Bytes.Load(), uint64(sockets*each+(sockets-1)*5)*128; got != want {
		t.Errorf("%d bytes at the end, want %d", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
