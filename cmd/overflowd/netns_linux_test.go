// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/tracer"
)

// The lab: a source, a router with softflowd and overflowd, one more hop, and a
// destination.
//
//	src 45.83.0.2 -- router -- hop -- 91.200.16.2 dst
//	    2600::2                       2a00::2
type lab struct {
	t                     *testing.T
	src, router, hop, dst string
}

func newLab(t *testing.T) *lab {
	netns.Need(t, "ip", "softflowd")
	pid := os.Getpid()
	l := &lab{t, fmt.Sprintf("src%d", pid), fmt.Sprintf("router%d", pid), fmt.Sprintf("hop%d", pid), fmt.Sprintf("dst%d", pid)}
	for _, ns := range []string{l.src, l.router, l.hop, l.dst} {
		l.namespace(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")
	}
	l.link(l.src, "45.83.0.2/24", "2600::2/64", l.router, "45.83.0.1/24", "2600::1/64")
	l.link(l.router, "11.0.0.1/24", "2601::1/64", l.hop, "11.0.0.2/24", "2601::2/64")
	l.link(l.hop, "91.200.16.1/24", "2a00::1/64", l.dst, "91.200.16.2/24", "2a00::2/64")
	for _, r := range [][3]string{{l.src, "45.83.0.1", "2600::1"}, {l.router, "11.0.0.2", "2601::2"}, {l.hop, "11.0.0.1", "2601::1"}, {l.dst, "91.200.16.1", "2a00::1"}} {
		l.run("ip", "-n", r[0], "route", "add", "default", "via", r[1])
		l.run("ip", "-n", r[0], "-6", "route", "add", "default", "via", r[2])
	}
	return l
}

// namespace makes one, with settings, until the end of the test.
func (l *lab) namespace(ns string, settings ...string) {
	l.t.Helper()
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	l.run("ip", "-n", ns, "link", "set", "lo", "up")
	for _, s := range settings {
		l.run("ip", "netns", "exec", ns, "sysctl", "-q", s)
	}
}

// link joins two namespaces. An IPv6 address may be empty.
func (l *lab) link(a, a4, a6, b, b4, b6 string) {
	l.run("ip", "-n", a, "link", "add", "to-"+b[:3], "type", "veth", "peer", "name", "to-"+a[:3], "netns", b)
	for _, x := range [][4]string{{a, "to-" + b[:3], a4, a6}, {b, "to-" + a[:3], b4, b6}} {
		l.run("ip", "-n", x[0], "addr", "add", x[2], "dev", x[1])
		if x[3] != "" {
			l.run("ip", "-n", x[0], "addr", "add", x[3], "dev", x[1], "nodad")
		}
		l.run("ip", "-n", x[0], "link", "set", x[1], "up")
	}
}

func (l *lab) run(name string, args ...string) {
	l.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// start starts a command in a namespace and ends it with the test.
func (l *lab) start(ns string, stdout, stderr io.Writer, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// helper starts this test program in a namespace as one of the helpers below.
func (l *lab) helper(ns, helper string, args ...string) *bufio.Scanner {
	l.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	l.start(ns, w, os.Stderr, self, append([]string{"netns-helper", helper}, args...)...)
	w.Close()
	l.t.Cleanup(func() { r.Close() })
	return bufio.NewScanner(r)
}

// runHelper is what the test program does when it is started as a helper.
func runHelper(args []string) error {
	switch args[0] {
	case "listen": // prints TTL, sender and bytes of what comes to the tracers' port
		pc, err := net.ListenPacket("udp", ":"+strconv.Itoa(tracer.Port))
		if err != nil {
			return err
		}
		raw, err := pc.(*net.UDPConn).SyscallConn()
		if err != nil {
			return err
		}
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTTL, 1)
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		})
		fmt.Println("ready")
		pc.SetDeadline(time.Now().Add(time.Minute))
		for {
			b, oob := make([]byte, 2000), make([]byte, 200)
			n, m, _, from, err := pc.(*net.UDPConn).ReadMsgUDP(b, oob)
			if err != nil {
				return err
			}
			ttl := -1
			messages, _ := syscall.ParseSocketControlMessage(oob[:m])
			for _, c := range messages {
				if c.Header.Type == unix.IP_TTL || c.Header.Type == unix.IPV6_HOPLIMIT {
					ttl = int(c.Data[0]) | int(c.Data[3]) // an int in either byte order
				}
			}
			fmt.Println(ttl, from.IP, hex.EncodeToString(b[:n]))
		}
	case "echo": // sends back what comes to port 9999, for a minute
		pc, err := net.ListenPacket("udp", ":9999")
		if err != nil {
			return err
		}
		fmt.Println("ready")
		pc.SetDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return err
			}
			pc.WriteTo(b[:n], from)
		}
	case "blast", "blast-from": // so many packets of so many bytes, as many each 10 ms
		d := net.Dialer{}
		if args[0] == "blast-from" {
			d.LocalAddr, args = &net.UDPAddr{IP: net.ParseIP(args[1])}, args[1:]
		}
		c, err := d.Dial("udp", args[1])
		if err != nil {
			return err
		}
		var n [3]int
		for i := range n {
			if n[i], err = strconv.Atoi(args[2+i]); err != nil {
				return err
			}
		}
		b := make([]byte, n[1])
		refused := 0
		for i := range n[0] {
			if _, err := c.Write(b); err != nil { // "connection refused" tells of one before
				refused++
			}
			if i%n[2] == n[2]-1 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		fmt.Println("done", refused)
		return nil
	case "send": // by the transport alone
		u, err := sender.OpenUDP()
		if err != nil {
			return err
		}
		fmt.Println(u.Send(netip.MustParseAddr(args[1]), []byte(args[2])))
		return nil
	}
	return fmt.Errorf("no helper %q", args[0])
}

// TestBothEndsOfAFlowGetATracer is the whole way: real traffic, a real exporter,
// the program, and a listener at each end.
func TestBothEndsOfAFlowGetATracer(t *testing.T) {
	t.Run("NetFlow v5", func(t *testing.T) { bothEnds(t, "5", "45.83.0.2", "91.200.16.2") })
	t.Run("NetFlow v9, IPv6", func(t *testing.T) { bothEnds(t, "9", "2600::2", "2a00::2") })
	t.Run("IPFIX, IPv6", func(t *testing.T) { bothEnds(t, "10", "2600::2", "2a00::2") })
	t.Run("capture", func(t *testing.T) { bothEnds(t, captured, "45.83.0.2", "91.200.16.2") })
	t.Run("capture, IPv6", func(t *testing.T) { bothEnds(t, captured, "2600::2", "2a00::2") })
}

// captured is in the place of an export's version.
const captured = ""

func bothEnds(t *testing.T, version, source, destination string) {
	l := newLab(t)
	src, dst := l.helper(l.src, "listen"), l.helper(l.dst, "listen")
	for _, s := range []*bufio.Scanner{src, dst} {
		if !s.Scan() || s.Text() != "ready" {
			t.Fatal("a listener did not start")
		}
	}
	open := openFolder(t)
	state, socket := filepath.Join(open, "state"), filepath.Join(open, "socket")
	program := filepath.Join(t.TempDir(), "overflowd")
	l.run("go", "build", "-o", program, ".")
	from, started, said := []string{"-u", "7777"}, filepath.Join(t.TempDir(), "ctl"), "127.0.0.1"
	if version == captured {
		from, started, said = []string{"-i", "to-src"}, socket, "capturing on to-src"
	}
	var stdout, stderr bytes.Buffer
	daemon := l.start(l.router, &stdout, &stderr, program, append(from, "-r", "1/1000", "--send", "udp", "--state", state,
		"--contact-email", "abuse@example.net", "--user", "nobody", "--status", socket)...)
	if version != captured {
		l.start(l.router, io.Discard, io.Discard, "softflowd", "-d", "-i", "to-"+l.src[:3], "-n", "127.0.0.1:7777", "-v", version,
			"-t", "maxlife=1", "-t", "expint=1", "-c", started, "-p", filepath.Join(t.TempDir(), "pid"))
	}
	for range 100 {
		if _, err := os.Stat(started); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	blast := l.helper(l.src, "blast", net.JoinHostPort(destination, "9999"), "20000", "1000", "100")
	done := func() time.Time {
		if !blast.Scan() || !strings.HasPrefix(blast.Text(), "done") {
			t.Fatal("no traffic")
		}
		return time.Now()
	}
	if version != captured { // at the latest when the flow is over
		done()
	}
	for end, c := range map[string]struct {
		s    *bufio.Scanner
		addr string
		ttl  int
	}{"source": {src, source, 255}, "destination": {dst, destination, 254}} {
		if !c.s.Scan() {
			daemon.Process.Signal(syscall.SIGTERM)
			daemon.Wait()
			t.Fatalf("the %s got nothing; the program says:\n%s%s", end, stderr.String(), stdout.String())
		}
		var ttl int
		var from, text string
		fmt.Sscan(c.s.Text(), &ttl, &from, &text)
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := tracer.ParseDatagram(b)
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		m, err := signed.Open()
		if err != nil {
			t.Fatalf("%s: %v", end, err)
		}
		f := &m.Flow
		if ttl != c.ttl || m.To.String() != c.addr || f.SrcAddr().String() != source || f.DstAddr().String() != destination ||
			f.DstPort != 9999 || m.Contact.Email != "abuse@example.net" || m.Rate != 0.001 || m.Selected == 0 {
			t.Errorf("the %s got, with TTL %d: %s", end, ttl, signed.Message)
		}
		if age := time.Since(time.UnixMilli(f.End)); age < -time.Second || age > time.Minute {
			t.Errorf("the flow ended %v ago", age)
		}
		if version == captured && (m.SourceType != "Capture" || f.Known&flow.HasTTL == 0 || f.TTL != 64 ||
			f.Packets < 1 || f.Packets > 20000 || f.Bytes != f.Packets*uint64(1000+8+ipHeader(f.Family))) {
			t.Errorf("the %s got: %s", end, signed.Message)
		}
	}
	if version == captured { // there is no need to wait for the end of a flow
		came := time.Now()
		if early := done().Sub(came); early < 500*time.Millisecond {
			t.Errorf("both ends were told %v before the end of the flow", early)
		}
	}
	if out, err := exec.Command("ip", "netns", "exec", l.router, program, "status", "--status", socket).CombinedOutput(); err != nil ||
		!strings.Contains(string(out), said) || !strings.Contains(string(out), "sending tracers") {
		t.Errorf("status: %v: %s", err, out)
	}
	daemon.Process.Signal(syscall.SIGTERM)
	if err := daemon.Wait(); err != nil {
		t.Errorf("the program ended with %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(stdout.String()), "\n") {
		signed, err := tracer.ParseLine([]byte(line))
		if err == nil {
			_, err = signed.Open()
		}
		if err != nil {
			t.Errorf("printed: %v: %s", err, line)
		}
	}
	if !strings.Contains(stderr.String(), "running as user nobody") || !strings.Contains(stderr.String(), "sent ") {
		t.Errorf("the program says:\n%s", stderr.String())
	}
}

// openFolder is, unlike t.TempDir, one that another user may enter.
func openFolder(t *testing.T) string {
	open, err := os.MkdirTemp("", "overflowd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(open) })
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	return open
}

func ipHeader(f flow.Family) int {
	if f == flow.IPv6 {
		return 40
	}
	return 20
}

// TestTheHopLimitTellsTheDistanceOverIPv6 too.
func TestTheHopLimitTellsTheDistanceOverIPv6(t *testing.T) {
	l := newLab(t)
	for addr, c := range map[string]struct {
		ns   string
		want string
	}{"2600::2": {l.src, "255 2600::1 74776f"}, "2a00::2": {l.dst, "254 2601::1 74776f"}, "91.200.16.2": {l.dst, "254 11.0.0.1 74776f"}} {
		s := l.helper(c.ns, "listen")
		if !s.Scan() {
			t.Fatal("no listener")
		}
		if r := l.helper(l.router, "send", addr, "two"); !r.Scan() || r.Text() != "<nil>" {
			t.Fatalf("%s: %s", addr, r.Text())
		}
		if !s.Scan() || s.Text() != c.want {
			t.Errorf("%s got %q, want %q", addr, s.Text(), c.want)
		}
		l.run("sh", "-c", "ip netns pids "+c.ns+" | xargs -r kill; sleep 0.2")
	}
}
