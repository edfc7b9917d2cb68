// SPDX-License-Identifier: BSD-3-Clause

// Package netns makes network namespaces of Linux for tests.
package netns

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Namespace is one, in which the loopback is up and IPv6 is off, so that no
// packet comes that nobody sent. It ends with the test.
type Namespace struct {
	t    testing.TB
	Name string
}

// number tells the namespaces of a process apart.
var number atomic.Uint32

// Need skips the test unless it runs as root and has the tools. In CI, where the
// environment has CI, it fails the test.
func Need(t testing.TB, tools ...string) {
	t.Helper()
	var missing string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool + " is missing"
		}
	}
	if os.Geteuid() != 0 {
		missing = "not root"
	}
	if missing == "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}

// New makes a namespace. It needs ip(8).
func New(t testing.TB) *Namespace {
	t.Helper()
	Need(t, "ip")
	n := &Namespace{t, fmt.Sprintf("overflowd%d-%d", os.Getpid(), number.Add(1))}
	n.run("netns", "add", n.Name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", n.Name).Run() })
	n.Set("ipv6.conf.all.disable_ipv6", "1")
	n.Set("ipv6.conf.default.disable_ipv6", "1")
	n.IP("link set lo up")
	return n
}

func (n *Namespace) run(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// IP runs ip(8) in the namespace, with words as arguments.
func (n *Namespace) IP(words string) {
	n.t.Helper()
	n.run(append([]string{"-n", n.Name}, strings.Fields(words)...)...)
}

// Veth links the interface of one namespace to that of another, and waits until
// they can send.
func (n *Namespace) Veth(name string, peer *Namespace, peerName string) {
	n.t.Helper()
	n.IP("link add dev " + name + " type veth peer name " + peerName + " netns " + peer.Name)
	peer.IP("link set dev " + peerName + " up")
	n.IP("link set dev " + name + " up")
	n.Ready(name)
	peer.Ready(peerName)
}

// Ready waits until an interface that is up and has a carrier can send: when both
// became true the kernel gives it a queue in its own time, and what is sent
// before is lost without an error.
func (n *Namespace) Ready(name string) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		l, err := n.show(name)
		if err != nil {
			n.t.Fatal(err)
		}
		if l.Operstate == "UP" && l.Qdisc != "noop" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s is never ready: %+v", name, l)
		}
	}
}

// Set sets net.KEY of sysctl(8) in the namespace.
func (n *Namespace) Set(key, value string) {
	n.t.Helper()
	path := filepath.Join("/proc/sys/net", strings.ReplaceAll(key, ".", "/"))
	if err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0o644) }); err != nil {
		n.t.Fatal(err)
	}
}

// Do runs f in the namespace, and returns its error. Sockets that f makes stay
// there. f must not leave it to another goroutine to make them.
func (n *Namespace) Do(f func() error) error { return <-n.Go(f) }

// Go starts f in the namespace. The channel has room for its error.
func (n *Namespace) Go(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		done <- n.enter(f)
	}()
	return done
}

func (n *Namespace) enter(f func() error) error {
	fd, err := unix.Open(filepath.Join("/run/netns", n.Name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", n.Name, err)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("enter namespace %s: %w", n.Name, err)
	}
	return f()
}

// Send returns a function that sends frames, from the link layer on, out of an
// interface.
func (n *Namespace) Send(name string) func(frames ...[]byte) {
	n.t.Helper()
	fd, to := -1, &unix.SockaddrLinklayer{}
	err := n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		q, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, q); err != nil {
			return err
		}
		to.Ifindex = int(q.Uint32())
		return nil
	})
	n.t.Cleanup(func() {
		if fd >= 0 {
			unix.Close(fd)
		}
	})
	if err != nil {
		n.t.Fatalf("send on %s: %v", name, err)
	}
	return func(frames ...[]byte) {
		n.t.Helper()
		for _, f := range frames {
			if len(f) >= 14 {
				to.Protocol = uint16(f[12]) | uint16(f[13])<<8 // in network byte order
			}
			for {
				err := unix.Sendto(fd, f, 0, to)
				if err == nil {
					break
				} else if err != unix.ENOBUFS && err != unix.EINTR {
					n.t.Fatalf("send %d bytes on %s: %v", len(f), name, err)
				}
			}
		}
	}
}

// Statistic returns one of an interface, by the name of sysfs without the
// directory, such as rx_packets.
func (n *Namespace) Statistic(name, which string) uint64 {
	n.t.Helper()
	l, err := n.show(name)
	if err != nil {
		n.t.Fatal(err)
	}
	direction, what, _ := strings.Cut(which, "_")
	v, ok := l.Stats64[direction][what]
	if !ok {
		n.t.Fatalf("%s has no statistic %s", name, which)
	}
	return v
}

// Index returns the number of an interface.
func (n *Namespace) Index(name string) int {
	n.t.Helper()
	l, err := n.show(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return l.Ifindex
}

// link is what ip(8) tells of one.
type link struct {
	Ifindex          int
	Operstate, Qdisc string
	Stats64          map[string]map[string]uint64
}

func (n *Namespace) show(name string) (*link, error) {
	out, err := exec.Command("ip", "-n", n.Name, "-s", "-j", "link", "show", "dev", name).Output()
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", name, err)
	}
	var l []link
	if err := json.Unmarshal(out, &l); err != nil || len(l) != 1 {
		return nil, fmt.Errorf("show %s: %d links, %v: %s", name, len(l), err, out)
	}
	return &l[0], nil
}
