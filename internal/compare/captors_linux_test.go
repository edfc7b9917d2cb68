// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A captor is a program that captures packets, with its options.
type captor struct {
	name string
	// args has the command line for an interface; dir is for its files.
	args func(iface, dir string) []string
	// file has that for a capture file; nil if it reads none.
	file func(name, dir string) []string
	// seen tells of how many packets it knows once it has read all; it ends it,
	// if it runs. said is all that it printed.
	seen func(b *testing.B, r *running, dir string) int
	// no packets of IPv6
	ipv4 bool
}

// captors are the programs at their defaults, and with the buffers and the
// lengths of capture that lose them the fewest packets. The flows that are
// remembered are as many as each has by default, 8192 in overflowd and in
// softflowd. None sends flows elsewhere but fprobe, which tells in no other way
// what it saw; nfpcapd writes its files.
func captors(b *testing.B) []captor {
	for _, tool := range []string{"ip", "taskset", "softflowd", "softflowctl", "fprobe", "nfpcapd", "nfdump"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skip(err)
		}
	}
	overflowd := filepath.Join(b.TempDir(), "overflowd")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", overflowd, "./cmd/overflowd")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	all := []captor{overflowdWith(overflowd)}
	for _, c := range []struct{ name, options string }{{"softflowd", ""}, {"softflowd-tuned", "-B 33554432 -C 128"}} {
		with := func(dir, source, of, control string) []string {
			return append([]string{"softflowd", "-d", "-6", source, of, "-c", control, "-p", filepath.Join(dir, "pid")}, strings.Fields(c.options)...)
		}
		processed := regexp.MustCompile(`Packets processed: (\d+)`)
		all = append(all, captor{name: c.name,
			args: func(iface, dir string) []string { return with(dir, "-i", iface, filepath.Join(dir, "ctl")) },
			// With a control socket it waits, now and then, for somebody there.
			file: func(name, dir string) []string { return with(dir, "-r", name, "none") },
			seen: func(b *testing.B, r *running, dir string) int {
				if r.ended {
					return figure(b, processed, r.said.String())
				}
				out, err := exec.Command("softflowctl", "-c", filepath.Join(dir, "ctl"), "statistics").CombinedOutput()
				if err != nil {
					b.Fatalf("softflowctl: %v: %s", err, out)
				}
				r.stop(b)
				return figure(b, processed, string(out))
			}})
	}
	// Its queue holds 100 packets by default, and it loses most others.
	all = append(all, captor{name: "fprobe-tuned", ipv4: true,
		args: func(iface, dir string) []string {
			return []string{"fprobe", "-l2", "-i", iface, "-f", "ip", "-q", "100000", "-B", "4096", "-S", "128", collectorAddr}
		},
		seen: func(b *testing.B, r *running, dir string) int {
			packets := collect(b, r.ns)
			r.stop(b)
			return packets()
		}})
	for _, c := range []struct{ name, options string }{{"nfpcapd", ""}, {"nfpcapd-tuned", "-b 32 -s 128"}} {
		with := func(dir, source, of string) []string {
			return append([]string{"nfpcapd", source, of, "-w", dir, "-t", "86400"}, strings.Fields(c.options)...)
		}
		packets := regexp.MustCompile(`(?m)^Packets: (\d+)`)
		all = append(all, captor{name: c.name,
			args: func(iface, dir string) []string { return with(dir, "-i", iface) },
			file: func(name, dir string) []string { return with(dir, "-r", name) },
			seen: func(b *testing.B, r *running, dir string) int {
				r.stop(b)
				out, err := exec.Command("nfdump", "-R", dir, "-I").Output()
				if err != nil {
					b.Fatalf("nfdump: %v", err)
				}
				return figure(b, packets, string(out))
			}})
	}
	return all
}

// overflowdWith is the program with more options.
func overflowdWith(program string, options ...string) captor {
	packets := regexp.MustCompile(`(\d+) packets,`)
	return captor{name: "overflowd",
		args: func(iface, dir string) []string {
			return append([]string{program, "-i", iface, "--state", dir, "--status", filepath.Join(dir, "status")}, options...)
		},
		file: func(name, dir string) []string {
			return append([]string{program, "-f", name, "--state", dir}, options...)
		},
		seen: func(b *testing.B, r *running, dir string) int {
			r.stop(b)
			return figure(b, packets, r.said.String())
		}}
}

func figure(b *testing.B, of *regexp.Regexp, text string) int {
	b.Helper()
	m := of.FindStringSubmatch(text)
	if m == nil {
		b.Fatalf("no %v in: %s", of, text)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

const collectorAddr = "127.0.0.1:9995"

// collect receives NetFlow v5 in a namespace. What it returns waits for the last
// datagram and sums up the packets of all flows.
func collect(b *testing.B, ns string) (packets func() int) {
	opened := make(chan error)
	var conn net.PacketConn
	go func() {
		runtime.LockOSThread() // and never unlocked: this thread ends in the namespace
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			conn, err = net.ListenPacket("udp4", collectorAddr)
		}
		opened <- err
	}()
	if err := <-opened; err != nil {
		b.Fatal(err)
	}
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	if err != nil {
		b.Fatal(err)
	}
	return func() int {
		defer conn.Close()
		sum, records, sent := 0, 0, 0
		for d := make([]byte, 2048); ; {
			conn.SetReadDeadline(time.Now().Add(time.Second))
			n, _, err := conn.ReadFrom(d)
			if err != nil {
				break
			}
			be := binary.BigEndian
			count := int(be.Uint16(d[2:]))
			for i := range count {
				if r := d[24+48*i : n]; len(r) >= 20 {
					sum += int(be.Uint32(r[16:]))
				}
			}
			records += count
			sent = max(sent, int(be.Uint32(d[16:]))+count)
		}
		if records != sent {
			b.Errorf("%d of %d flow records arrived: fprobe saw more than is counted", records, sent)
		}
		return sum
	}
}

// running is a captor that runs, or has ended.
type running struct {
	process
	said  *strings.Builder
	ns    string
	ended bool
}

func (r *running) stop(b *testing.B) {
	if r.ended {
		return
	}
	r.ended = true
	r.cmd.Process.Signal(unix.SIGTERM)
	late := time.AfterFunc(time.Minute, func() { r.cmd.Process.Kill() })
	defer late.Stop()
	r.cmd.Wait() // by a signal perhaps
}

// wire is a veth pair, send -- captured, each end in a namespace of its own.
type wire struct {
	b               *testing.B
	sender, captive string // the namespaces
	self            string
}

func newWire(b *testing.B) *wire {
	if os.Geteuid() != 0 {
		b.Skip("not root")
	}
	if runtime.NumCPU() < 2 {
		b.Skip("one CPU for the sender and the captor")
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	w := &wire{b, fmt.Sprintf("send%d", os.Getpid()), fmt.Sprintf("capt%d", os.Getpid()), self}
	for _, ns := range []string{w.sender, w.captive} {
		w.run("ip", "netns", "add", ns)
		b.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
		// Nothing but what is sent: no router solicitations.
		w.run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
		w.run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	w.run("ip", "-n", w.sender, "link", "add", "name", "send", "type", "veth", "peer", "name", "captured", "netns", w.captive)
	w.run("ip", "-n", w.captive, "link", "set", "captured", "up")
	w.run("ip", "-n", w.sender, "link", "set", "send", "up")
	return w
}

func (w *wire) run(name string, args ...string) string {
	w.b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		w.b.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

// start starts a captor on all CPUs but the first, which is the sender's.
func (w *wire) start(c captor, dir string) *running {
	args := append([]string{"netns", "exec", w.captive, "taskset", "-c", fmt.Sprintf("1-%d", runtime.NumCPU()-1)}, c.args("captured", dir)...)
	r := &running{ns: w.captive, said: new(strings.Builder)}
	r.cmd = exec.Command("ip", args...)
	r.cmd.Stderr = r.said
	if err := r.cmd.Start(); err != nil {
		w.b.Fatal(err)
	}
	w.b.Cleanup(func() { r.stop(w.b) })
	for range 200 {
		// A header, and a line a socket.
		sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/packet", r.cmd.Process.Pid))
		if err == nil && strings.Count(string(sockets), "\n") > 1 {
			time.Sleep(500 * time.Millisecond) // and the rest of its start
			return r
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.stop(w.b)
	w.b.Fatalf("%s does not capture: %s", c.name, r.said.String())
	return nil
}

// settle waits until the captor has no more to do, and returns its CPU time.
func (r *running) settle(b *testing.B) time.Duration {
	spent := r.cpu(b)
	for range 100 {
		time.Sleep(300 * time.Millisecond)
		before := spent
		if spent = r.cpu(b); spent-before < 3*time.Millisecond {
			return spent
		}
	}
	b.Errorf("%v works on and on", r.cmd.Args)
	return spent
}

// load is what sending did.
type load struct {
	arrived   int           // packets, as the receiving interface counts them
	took, cpu time.Duration // cpu is of the sender, which delivers the packets as well
}

func (w *wire) send(kind string, n int) load {
	before := w.received()
	out := w.run("ip", "netns", "exec", w.sender, "taskset", "-c", "0", w.self, "send-frames", "send", kind, strconv.Itoa(n))
	var l load
	if _, err := fmt.Sscan(out, &l.took, &l.cpu); err != nil {
		w.b.Fatalf("the sender says %q", out)
	}
	l.arrived = w.received() - before
	return l
}

func (w *wire) received() int {
	var links []struct {
		Stats64 struct{ Rx struct{ Packets int } }
	}
	out := w.run("ip", "-n", w.captive, "-s", "-j", "link", "show", "captured")
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		w.b.Fatalf("%v: %s", err, out)
	}
	return links[0].Stats64.Rx.Packets
}
