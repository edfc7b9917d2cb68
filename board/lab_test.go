// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/tracer"
)

// A network is a namespace at a tap, in which there are hosts. It keeps the tracers
// that come there.
type network struct {
	*netns.Namespace
	t   testing.TB
	tap string
	// guest is the board at the tap.
	guest *machine.Machine

	mu      sync.Mutex
	tracers []arrival
}

// An arrival is a tracer that came.
type arrival struct {
	to   netip.Addr // whom the packet was to
	hops uint8      // its TTL or hop limit
	*tracer.Message
	key tracer.PublicKey
}

// newNetwork makes one with addresses, and a default route for what they are not
// neighbours of. Its tap comes up when a board has it.
func newNetwork(t testing.TB, tap string) *network {
	n := &network{Namespace: netns.New(t), t: t, tap: tap}
	n.Set("ipv6.conf.all.disable_ipv6", "0")
	n.Set("ipv6.conf.default.disable_ipv6", "0")
	n.Set("ipv6.conf.default.accept_dad", "0")
	n.Set("ipv6.conf.default.router_solicitations", "0")
	n.IP("tuntap add dev " + tap + " mode tap")
	n.Set("ipv6.conf."+tap+".accept_dad", "0")
	return n
}

// up gives it addresses and routes, and listens.
func (n *network) up(addresses string, gateways ...string) {
	n.t.Helper()
	n.IP("link set dev " + n.tap + " up")
	for _, a := range strings.Fields(addresses) {
		n.IP("addr add " + a + " dev " + n.tap)
	}
	for _, g := range gateways {
		family := "-4"
		if strings.Contains(g, ":") {
			family = "-6"
		}
		n.IP(family + " route add default via " + g)
	}
	n.Ready(n.tap)
	n.listen()
}

// listen keeps the tracers among all that is seen on the tap, whomever they are to.
func (n *network) listen() {
	fd := -1
	err := n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		i, err := net.InterfaceByName(n.tap)
		if err != nil {
			return err
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		tv := unix.Timeval{Usec: 100_000}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	})
	if err != nil {
		n.t.Fatal(err)
	}
	stop, done := make(chan bool), make(chan bool)
	n.t.Cleanup(func() { close(stop); <-done; unix.Close(fd) })
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			select {
			case <-stop:
				return
			default:
			}
			size, from, err := unix.Recvfrom(fd, b, 0)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
				n.frame(bytes.Clone(b[:size]))
			}
		}
	}()
}

func (n *network) frame(b []byte) {
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy)
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || udp.DstPort != tracer.Port {
		return
	}
	a := arrival{}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		a.to, a.hops = netip.AddrFrom4([4]byte(ip.DstIP.To4())), ip.TTL
	case *layers.IPv6:
		a.to, a.hops = netip.AddrFrom16([16]byte(ip.DstIP)), ip.HopLimit
	}
	signed, err := tracer.ParseDatagram(udp.Payload)
	if err == nil {
		a.Message, err = signed.Open()
	}
	if err != nil {
		n.t.Errorf("a datagram to %v is no tracer: %v", a.to, err)
		return
	}
	a.key = signed.Key
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tracers = append(n.tracers, a)
}

// to returns the tracers that came for an address.
func (n *network) to(address string) (found []arrival) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.tracers {
		if a.to == netip.MustParseAddr(address) {
			found = append(found, a)
		}
	}
	return found
}

// send sends datagrams of 1,000 bytes from an address to another until the condition is
// true, at most so many. It waits for the board after each few: a processor that has to do
// with packets only would never come to send a tracer.
func (n *network) send(from, to string, most int, enough func() bool) (sent int) {
	n.t.Helper()
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 4000))
		c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), 5000)))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	payload := make([]byte, 1000)
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for sent < most && !enough() {
		<-pace.C
		for range 20 {
			if _, err := c.Write(payload); err == nil { // what is refused is no matter
				sent++
			}
		}
		n.guest.Do(control.Request{})
	}
	return sent
}

// The far hosts are ones of the Internet that nobody answers for here.
const (
	router4, host4, far4 = "45.83.0.1", "45.83.0.2", "91.200.16.2"
	router6, host6, far6 = "2600::1", "2600::2", "2a00::2"
)

// newRouter boots a board at a network of a host, whose gateway it is, with the
// package's files at Root.
func newRouter(t *testing.T, b *machine.Board, o machine.Options) (*machine.Machine, *network) {
	t.Helper()
	n := newNetwork(t, "tap0")
	o.Networks = []machine.Network{{Namespace: n.Namespace, Tap: n.tap}}
	m := b.Start(t, o)
	n.guest = m
	m.MountRoot(b)
	m.Do(control.Request{Link: &control.Link{Name: "eth0", Addresses: []string{router4 + "/24", router6 + "/64"},
		Gateways: []string{host4, host6}}})
	n.up(host4+"/24 45.83.0.3/24 "+host6+"/64", router4, router6)
	return m, n
}

// startWith starts the daemon and waits until it answers.
func startWith(m *machine.Machine, env []string, args ...string) *machine.Daemon {
	d := m.StartDaemon(env, args...)
	m.Until("the daemon answers", func() bool {
		if status(m) != nil {
			return true
		}
		if _, err := m.Ask(control.Request{Kill: &control.Kill{Pid: d.Pid}}); err != nil {
			m.TB().Fatalf("the daemon ended: %s", d.Err())
		}
		return false
	})
	return d
}

// serve has the init script of an image start the daemon, and waits until it answers.
func serve(m *machine.Machine) *machine.Daemon {
	m.Shell("/etc/init.d/overflowd restart")
	m.Until("the daemon answers", func() bool { return status(m) != nil })
	return m.Service("overflowd")
}

// capturing is the configuration of a router that captures.
const capturing = "config interface 'wan'\n\tlist device 'eth0'\n\toption role 'wan'\n"

// status returns what overflowd status says, nil if nobody answers.
func status(m *machine.Machine) *observation {
	a, err := m.Ask(control.Request{Run: &control.Run{Root: machine.Root,
		Args: []string{"/usr/bin/overflowd", "status", "--json"}}})
	if err != nil || a.Code != 0 {
		return nil
	}
	o := new(observation)
	if json.Unmarshal(a.Out, o) != nil {
		return nil
	}
	return o
}

// observation is what the tests want to know of the status.
type observation struct {
	Captured struct{ Packets int }
	Selected struct{ Packets, Records, Lost int }
	Tracers  struct{ Printed, Sent int }
}

// check tells whether a tracer that arrived is what it should be.
func check(t *testing.T, a arrival, to string) {
	t.Helper()
	if a.hops != 255 {
		t.Errorf("a tracer to %s came with %d hops left, not 255", to, a.hops)
	}
	if fmt.Sprint(a.To) != to {
		t.Errorf("a tracer to %s says it is to %v", to, a.To)
	}
}

func TestTracersLeaveTheBoardForBothEndsOfACapturedFlow(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		m, n := newRouter(t, b, options(t, b, "overflowd-mini"))
		d := start(m, capturing)
		for _, ends := range [][2]string{{host4, far4}, {host6, far6}} {
			sent := n.send(ends[0], ends[1], 60_000, func() bool { return len(n.to(ends[0])) > 0 && len(n.to(ends[1])) > 0 })
			for _, to := range ends {
				got := n.to(to)
				if len(got) == 0 {
					t.Fatalf("no tracer to %s of %d packets: %v", to, sent, status(m))
				}
				check(t, got[0], to)
				if f := got[0].Flow; f.SrcAddr().String() != ends[0] || f.DstAddr().String() != ends[1] || f.SrcPort != 4000 || f.DstPort != 5000 {
					t.Errorf("the tracer to %s is about %+v", to, f)
				}
			}
		}
		if code := d.Stop(unix.SIGTERM); code != 0 {
			t.Errorf("exit %d at the end: %s", code, d.Err())
		}
	})
}

func TestTracersLeaveTheBoardForTheFlowsOfAnExporter(t *testing.T) {
	netns.Need(t, "softflowd")
	each(t, func(t *testing.T, b *machine.Board) {
		m, n := newRouter(t, b, options(t, b, "overflowd-mini"))
		d := start(m, "config overflowd 'general'\n\toption listen '"+router4+"'\nconfig exporter\n\toption prefix '"+host4+"/32'\n")
		// 60 flows of 500 packets: the chance that none is selected is 1e-13.
		file := recording(t, 60, 500)
		c := exec.Command("ip", "netns", "exec", n.Name, "softflowd", "-r", file, "-v", "9", "-n", router4+":7777")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("softflowd: %v: %s", err, out)
		}
		m.Until("a tracer of each family to both ends", func() bool {
			return len(n.to(far4)) > 0 && len(n.to(host4)) > 0 && len(n.to(far6)) > 0 && len(n.to(host6)) > 0
		})
		for _, to := range []string{host4, far4, host6, far6} {
			check(t, n.to(to)[0], to)
		}
		if code := d.Stop(unix.SIGTERM); code != 0 {
			t.Errorf("exit %d at the end: %s", code, d.Err())
		}
	})
}
