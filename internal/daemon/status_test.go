// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/identity"
)

// run runs the program with the arguments until the test ends or stop is
// called, which returns what it says.
func run(t *testing.T, args ...string) (c *config.Config, stop func() (string, error)) {
	t.Helper()
	probe, err := net.ListenPacket("udp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(probe.LocalAddr().String())
	probe.Close()
	c, err = config.Parse(append([]string{"-u", port, "--state", t.TempDir()}, args...))
	if err != nil {
		t.Fatal(err)
	}
	c.Version = "v1.2.3"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var said bytes.Buffer
	go func() { done <- Run(ctx, c, io.Discard, log.New(&said, "", 0)) }()
	var end error
	ended := false
	stop = func() (string, error) {
		if !ended {
			cancel()
			end, ended = <-done, true
		}
		return said.String(), end
	}
	t.Cleanup(func() { stop() })
	for range 500 {
		select {
		case end = <-done:
			ended = true
			return c, stop
		default:
		}
		if conn, err := net.Dial("unix", c.Status); err == nil {
			conn.Close()
			break
		}
		time.Sleep(10 * time.Millisecond) // real sockets have no synthetic clock
	}
	return c, stop
}

// send sends a datagram from an address.
func send(t *testing.T, c *config.Config, from string, b []byte) {
	t.Helper()
	conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(c.Listen))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// v5 is a datagram of one record of 7 packets and 700 bytes, sampled 1 in 10.
func v5() []byte {
	b := make([]byte, 24+48)
	b[1], b[3], b[8], b[23] = 5, 1, 0x60, 10
	b[24+19], b[24+22], b[24+23] = 7, 700>>8, 700&255
	return b
}

func TestTheStatus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	if l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		t.Fatal(err)
	} else { // one that was killed leaves its socket
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	state := t.TempDir()
	id, err := identity.Open(state).LoadOrCreate()
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("%x", id.Private.Public())
	c, stop := run(t, "--status", socket, "--max-exporters", "2", "--state", state)
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	for range 5 { // those who say nothing keep nobody from an answer
		silent, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}

	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		send(t, c, from, v5())
	}
	send(t, c, "127.0.0.4", []byte{0, 9})
	send(t, c, "127.0.0.4", []byte{0, 77, 0, 0})
	send(t, c, "127.0.0.4", v5())

	type member = map[string]any
	var got member
	deadline := time.Now().Add(20 * time.Second)
	for {
		var b bytes.Buffer
		if err := Status(socket, true, &b); err != nil {
			t.Fatal(err)
		}
		if got = nil; json.Unmarshal(b.Bytes(), &got) != nil {
			t.Fatalf("no JSON: %s", b.Bytes())
		}
		if got["received"].(member)["datagrams"] == 4.0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, varies := range []string{"pid", "time", "uptime"} {
		if _, ok := got[varies].(float64); !ok {
			t.Errorf("%s is missing", varies)
		}
		delete(got, varies)
	}
	for _, x := range got["exporters"].([]any) {
		if last := x.(member)["last"].(float64); time.Since(time.Unix(int64(last), 0)).Abs() > time.Minute {
			t.Errorf("last heard at %v", last)
		}
		delete(x.(member), "last")
	}
	zero := member{}
	for _, name := range []string{"stranger", "version", "short", "empty", "cut", "damaged", "no_template", "bad_template", "no_flow", "no_count", "not_ip",
		"unreadable", "foreign", "fragment", "link_type"} {
		zero[name] = 0.0
	}
	zero["version"], zero["short"] = 1.0, 1.0
	exporter := func(address string, n float64, dropped member) member {
		return member{"address": address, "protocol": "Netflow", "version": 5.0, "sampling_interval": 10.0, "datagrams": n, "records": n,
			"packets": 70 * n, "bytes": 7000 * n, "dropped": dropped}
	}
	want := member{"version": "v1.2.3", "key": key, "listen": c.Listen.String(), "rate": 1e-6, "dropped": zero,
		"received": member{"datagrams": 4.0, "records": 4.0, "packets": 280.0, "bytes": 28000.0, "overrun": 0.0, "untaken": 0.0, "evicted": 0.0},
		"selected": member{"records": 0.0, "lost": 0.0, "unsigned": 0.0}, "tracers": member{"printed": 0.0}, "recent": []any{},
		"spoofed":   member{"yes": 0.0, "no": 0.0, "unknown": 0.0},
		"suspicion": member{"spoofed": 0.0, "special": 0.0, "syn": 0.0, "scan": 0.0, "reflection": 0.0, "backscatter": 0.0, "rate": 0.0, "listed": 0.0},
		"private":   member{"translated": 0.0, "unknown": 0.0, "failed": 0.0},
		"exporters": []any{exporter("127.0.0.4", 2, member{"short": 1.0, "version": 1.0}), exporter("127.0.0.3", 1, member{})}, "exporters_forgotten": 1.0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	var text bytes.Buffer
	if err := Status(socket, false, &text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"overflowd  v1.2.3, running for", "received   4 datagrams, 4 records, 280 packets, 28,000 bytes",
		"dropped    1 datagram of no flow protocol that is read", "           1 datagram shorter than", "key        " + key,
		"127.0.0.4  NetFlow v5  1:10 ", "1 exporter made room for others"} {
		if !strings.Contains(text.String(), line) {
			t.Errorf("it does not say %q:\n%s", line, text.String())
		}
	}
	if said, err := stop(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if err := Status(socket, false, io.Discard); err == nil || !strings.Contains(err.Error(), "no overflowd is running") {
		t.Errorf("after its end: %v", err)
	}
}

func TestTwoProgramsDoNotShareASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	run(t, "--status", socket)
	_, stop := run(t, "--status", socket)
	if _, err := stop(); err == nil || !strings.Contains(err.Error(), "another overflowd") {
		t.Errorf("%v", err)
	}
	if err := Status(socket, false, io.Discard); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestNoFileGivesWayToTheSocket(t *testing.T) {
	for _, name := range []string{"a file", "a folder", "a link"} {
		path := filepath.Join(t.TempDir(), "x")
		var err error
		switch name {
		case "a file":
			err = os.WriteFile(path, []byte("the signing key"), 0o600)
		case "a folder":
			err = os.Mkdir(path, 0o700)
		case "a link":
			err = os.Symlink("elsewhere", path)
		}
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.Lstat(path)
		_, stop := run(t, "--status", path)
		if _, err := stop(); err == nil || !strings.Contains(err.Error(), "--status "+path) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheStatusOfASender has the members of what is sent.
func TestTheStatusOfASender(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	c, _ := run(t, "--status", socket, "--send", "udp", "--contact-email", "abuse@example.net", "-r", "1/1000")
	b := v5()
	b[24+16] = 1 // 16 million packets between addresses of zeros: selected, and told to nobody
	send(t, c, netip.MustParseAddr("127.0.0.1").String(), b)
	var text string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var b bytes.Buffer
		if err := Status(socket, true, &b); err != nil {
			t.Fatal(err)
		}
		if text = b.String(); strings.Contains(text, `"unreachable":2`) {
			break
		}
	}
	if !strings.Contains(text, `"tracers":{"printed":0,"sent":0,"sent_bytes":0,"waiting":0,"held_back":{"tracer":0,"export":0,"unreachable":2,`) {
		t.Error(text)
	}
}
