// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/tracer"
)

// nat makes the lab's source a private host, which the router's address stands for
// in the Internet: 10.1.0.2 for 11.0.0.1, and fd00:1::2 for 2601::1.
func (l *lab) nat() {
	netns.Need(l.t, "nft")
	for _, x := range [][4]string{{l.src, "to-" + l.router[:3], "10.1.0.2/24", "fd00:1::2/64"}, {l.router, "to-" + l.src[:3], "10.1.0.1/24", "fd00:1::1/64"}} {
		l.run("ip", "-n", x[0], "addr", "flush", "dev", x[1], "scope", "global")
		l.run("ip", "-n", x[0], "addr", "add", x[2], "dev", x[1])
		l.run("ip", "-n", x[0], "addr", "add", x[3], "dev", x[1], "nodad")
	}
	l.run("ip", "-n", l.src, "route", "replace", "default", "via", "10.1.0.1")
	l.run("ip", "-n", l.src, "-6", "route", "replace", "default", "via", "fd00:1::1")
	l.run("ip", "netns", "exec", l.router, "sysctl", "-q", "net.netfilter.nf_conntrack_acct=1")
	l.run("ip", "netns", "exec", l.router, "nft", "add table inet nat; "+
		"add chain inet nat out { type nat hook postrouting priority 100 ; }; "+
		"add rule inet nat out oifname to-hop meta l4proto udp masquerade to :20000-30000")
}

// TestANATedFlowNamesThePublicAddress in the tracers to the far host, in both
// directions, and never the inner one.
func TestANATedFlowNamesThePublicAddress(t *testing.T) {
	program := buildRelease(t)
	for name, source := range map[string][]string{
		"captured within":  {"-i", "to-src:lan"},
		"captured without": {"-i", "to-hop:wan"},
		"counted":          {"--conntrack"},
	} {
		for _, family := range []struct{ name, inner, public, far string }{
			{"IPv4", "10.1.0.2", "11.0.0.1", "91.200.16.2"}, {"IPv6", "fd00:1::2", "2601::1", "2a00::2"},
		} {
			t.Run(name+", "+family.name, func(t *testing.T) {
				l := newLab(t)
				l.nat()
				natted(t, l, append([]string{program}, source...), family.inner, family.public, family.far)
			})
		}
	}
}

func natted(t *testing.T, l *lab, args []string, inner, public, far string) {
	listener := l.helper(l.dst, "listen")
	echo := l.helper(l.dst, "echo")
	for _, s := range []*bufio.Scanner{listener, echo} {
		if !s.Scan() || s.Text() != "ready" {
			t.Fatal("a helper did not start")
		}
	}
	dir, err := os.MkdirTemp("", "overflowd") // that another user may use
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	var stdout, stderr bytes.Buffer
	daemon := l.start(l.router, &stdout, &stderr, args[0], append(args[1:], "-r", "1/1000", "--send", "udp", "--user", "nobody",
		"--contact-email", "abuse@example.net", "--state", filepath.Join(dir, "state"), "--status", socket)...)
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond) // for the first list of connections
	blast := l.helper(l.src, "blast", net.JoinHostPort(far, "9999"), "20000", "1000", "100")
	if !blast.Scan() || !strings.HasPrefix(blast.Text(), "done") {
		t.Fatal("no traffic")
	}
	found := map[string]bool{}
	said := make(chan string)
	go func() {
		for listener.Scan() {
			said <- listener.Text()
		}
		close(said)
	}()
	for end := time.After(30 * time.Second); len(found) < 2; {
		select {
		case line := <-said:
			var ttl int
			var from, text string
			fmt.Sscan(line, &ttl, &from, &text)
			b, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := tracer.ParseDatagram(b)
			if err != nil {
				t.Fatal(err)
			}
			m, err := signed.Open()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(inner)) {
				t.Fatalf("the inner address leaves: %s", signed.Message)
			}
			f, publicEnd, farEnd := &m.Flow, netip.MustParseAddr(public), netip.MustParseAddr(far)
			switch {
			case m.To != farEnd:
				t.Errorf("it is to %s: %s", m.To, signed.Message)
			case f.SrcAddr() == publicEnd && f.DstAddr() == farEnd && f.DstPort == 9999 && f.SrcPort >= 20000 && f.SrcPort <= 30000:
				found["out"] = true
			case f.SrcAddr() == farEnd && f.DstAddr() == publicEnd && f.SrcPort == 9999 && f.DstPort >= 20000 && f.DstPort <= 30000:
				found["back"] = true
			default:
				t.Fatalf("of another flow: %s", signed.Message)
			}
		case <-end:
			status, _ := exec.Command("ip", "netns", "exec", l.router, args[0], "status", "--status", socket).CombinedOutput()
			t.Fatalf("only of %v is told; the program says:\n%s%s", found, stderr.String(), status)
		}
	}
	daemon.Process.Signal(syscall.SIGTERM)
	if err := daemon.Wait(); err != nil {
		t.Errorf("the program ended with %v: %s", err, stderr.String())
	}
	if strings.Contains(stdout.String(), inner) || strings.Contains(stderr.String(), "permi") {
		t.Errorf("the program says:\n%s%s", stderr.String(), stdout.String())
	}
}
