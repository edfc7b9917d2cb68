// SPDX-License-Identifier: BSD-3-Clause

// qemu-user does not pass on netlink of this family.
//go:build !mips && !mipsle && !mips64 && !mips64le

package conntrack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/packet"
)

// The lab: a router that translates, between two hosts that echo TCP and UDP.
//
//	inner 10.0.0.2 -- router 198.51.100.1 -- 198.51.100.2 outer
//	      fd00::2             2001:db8::1     2001:db8::2
type lab struct {
	t                    *testing.T
	inner, router, outer string
}

// newNamespace makes a network namespace that tracks connections.
func newNamespace(t *testing.T, name string) *lab {
	t.Helper()
	netns.Need(t, "ip", "nft", "conntrack", "sysctl")
	l := &lab{t: t, router: fmt.Sprintf("%s%d", name, os.Getpid())}
	l.add(l.router)
	l.nft("table inet track { chain c { type filter hook output priority 0; ct state new accept; }; }")
	return l
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := newNamespace(t, "router")
	l.inner, l.outer = fmt.Sprintf("inner%d", os.Getpid()), fmt.Sprintf("outer%d", os.Getpid())
	l.add(l.inner)
	l.add(l.outer)
	l.link(l.inner, "10.0.0.2/24", "fd00::2/64", l.router, "10.0.0.1/24", "fd00::1/64")
	l.link(l.router, "198.51.100.1/24", "2001:db8::1/64", l.outer, "198.51.100.2/24", "2001:db8::2/64")
	l.run("ip", "-n", l.inner, "route", "add", "default", "via", "10.0.0.1")
	l.run("ip", "-n", l.inner, "-6", "route", "add", "default", "via", "fd00::1")
	l.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	l.nft(`table inet translate {
		chain raw {
			type filter hook prerouting priority raw
			udp dport 7005 ct zone set 5
			udp dport 7006 ct original zone set 6
		}
		chain pre {
			type nat hook prerouting priority dstnat
			iifname to-outer ip daddr 198.51.100.1 tcp dport 8080 dnat to 10.0.0.2:80
		}
		chain post {
			type nat hook postrouting priority srcnat
			oifname to-outer meta l4proto { tcp, udp } masquerade to :20000-20999
			oifname to-outer masquerade
		}
	}`)
	for _, ns := range []string{l.inner, l.outer} {
		l.echo(ns)
	}
	return l
}

func (l *lab) add(ns string) {
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	l.run("ip", "-n", ns, "link", "set", "lo", "up")
}

func (l *lab) link(a, a4, a6, b, b4, b6 string) {
	l.run("ip", "-n", a, "link", "add", "to-"+b[:5], "type", "veth", "peer", "name", "to-"+a[:5], "netns", b)
	for _, x := range [][4]string{{a, "to-" + b[:5], a4, a6}, {b, "to-" + a[:5], b4, b6}} {
		l.run("ip", "-n", x[0], "addr", "add", x[2], "dev", x[1])
		l.run("ip", "-n", x[0], "addr", "add", x[3], "dev", x[1], "nodad")
		l.run("ip", "-n", x[0], "link", "set", x[1], "up")
	}
}

func (l *lab) run(name string, args ...string) []byte {
	l.t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		l.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return out
}

// exec runs a command in the router.
func (l *lab) exec(args ...string) []byte {
	l.t.Helper()
	return l.run("ip", append([]string{"netns", "exec", l.router}, args...)...)
}

func (l *lab) sysctl(settings ...string) {
	l.t.Helper()
	l.exec(append([]string{"sysctl", "-q", "-w"}, settings...)...)
}

func (l *lab) nft(rules string) {
	l.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", l.router, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("nft: %v: %s", err, out)
	}
}

// in runs f on a thread in a namespace, where also the sockets stay that it opens.
func (l *lab) in(ns string, f func() error) {
	l.t.Helper()
	result := make(chan error, 1) // f's
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		fd, err := unix.Open("/var/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) dial() (c *Conn) {
	l.t.Helper()
	l.in(l.router, func() (err error) { c, err = Dial(); return err })
	l.t.Cleanup(func() { c.Close() })
	return c
}

// echo serves TCP on port 80 and UDP on port 53.
func (l *lab) echo(ns string) {
	l.in(ns, func() error {
		listener, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					io.Copy(c, c)
					c.Close()
				}()
			}
		}()
		pc, err := net.ListenPacket("udp", ":53")
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { pc.Close() })
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				pc.WriteTo(b[:n], from)
			}
		}()
		return nil
	})
}

// talk sends bytes and waits for their echo.
func (l *lab) talk(ns, network, addr string, b []byte) {
	l.t.Helper()
	l.in(ns, func() error {
		c, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(b); err != nil {
			return err
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.CloseWrite()
			_, err = io.Copy(io.Discard, c)
			return err
		}
		_, err = c.Read(make([]byte, 2000))
		return err
	})
}

// say sends without waiting.
func (l *lab) say(ns, network, addr string, b []byte) {
	l.t.Helper()
	l.in(ns, func() error {
		c, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(b)
		return err
	})
}

// sniff starts a capture on an interface of the router. The function returned
// gives the keys of the packets that were seen, but for those of the link itself.
func (l *lab) sniff(name string) func() map[flow.Key]bool {
	var fd int
	l.in(l.router, func() error {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network byte order, of a little-endian machine
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	})
	l.t.Cleanup(func() { unix.Close(fd) })
	return func() map[flow.Key]bool {
		keys := make(map[flow.Key]bool)
		b := make([]byte, 70000)
		for {
			n, _, err := unix.Recvfrom(fd, b, 0)
			if err == unix.EAGAIN {
				return keys
			}
			if err != nil {
				l.t.Fatal(err)
			}
			var p packet.Packet
			if packet.Parse(packet.Ethernet, b[:n], &p) != nil || p.DstAddr().IsMulticast() || p.SrcAddr().IsLinkLocalUnicast() ||
				p.Protocol == protoICMPv6 && p.DstPort>>8 >= 130 {
				continue
			}
			keys[p.Key] = true
		}
	}
}
