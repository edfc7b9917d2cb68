// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/packet"
)

func TestOnLoopbackAPacketIsSeenOnce(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	n := netns.New(t)
	r := opened(t, n, "lo", &Filter{})
	if r.Link() != packet.Ethernet {
		t.Errorf("link type %d", r.Link())
	}
	const packets = 50
	err := n.Do(func() error {
		c, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range packets {
			for {
				if _, err := c.Write([]byte{byte(i)}); err == nil { // the one before was refused
					break
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	datagrams := 0
	for _, f := range take(t, r, 2*packets) { // and an answer each
		var d packet.Datagram
		if f.Outgoing {
			t.Error("an outgoing one")
		}
		if packet.ParseUDP(r.Link(), f.Data, &d) != nil {
			continue
		}
		if len(d.Payload) != 1 || d.Payload[0] != byte(datagrams) {
			t.Fatalf("packet %d: % x", datagrams, d.Payload)
		}
		datagrams++
	}
	if datagrams != packets {
		t.Errorf("%d datagrams", datagrams)
	}
}

func TestTagsAndPPPoE(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	const v4, v6, dot1q = layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeDot1Q
	tag := func(id uint16, of layers.EthernetType) *layers.Dot1Q {
		return &layers.Dot1Q{VLANIdentifier: id, Type: of}
	}
	ip := ip4(udp, "10.0.0.2", "10.0.0.1")
	ppp := []gopacket.SerializableLayer{ether(layers.EthernetTypePPPoESession), &layers.PPPoE{Version: 1, Type: 1, SessionId: 5, Length: 46}, &layers.PPP{PPPType: layers.PPPTypeIPv4}, ip, datagram(1, 2), payload}
	for _, c := range []struct {
		name        string
		sent        []byte
		taken       bool // by the kernel from the data
		vlan, inner uint16
	}{
		{"no tag", frame(t, ether(v4), ip, datagram(1, 2), payload), false, 0, 0},
		{"one tag", frame(t, ether(dot1q), tag(100, v4), ip, datagram(1, 2), payload), true, 100, 0},
		{"a priority tag", frame(t, ether(dot1q), tag(0, v6), ip6(udp, us6, us6), datagram(1, 2), payload), true, 0, 0},
		{"two tags", frame(t, ether(layers.EthernetTypeQinQ), tag(200, dot1q), tag(300, v4), ip, datagram(1, 2), payload), true, 200, 300},
		{"two tags alike", frame(t, ether(dot1q), tag(200, dot1q), tag(4095, v4), ip, datagram(1, 2), payload), true, 200, 4095},
		{"a tag of before the standard", frame(t, ether(0x9100), tag(200, dot1q), tag(300, v4), ip, datagram(1, 2), payload), false, 200, 0},
		{"PPPoE", frame(t, ppp...), false, 0, 0},
		{"PPPoE behind a tag", frame(t, append([]gopacket.SerializableLayer{ether(dot1q), tag(7, layers.EthernetTypePPPoESession)}, ppp[1:]...)...), true, 7, 0},
	} {
		send(c.sent)
		f := take(t, r, 1)[0]
		want := c.sent
		if c.taken {
			want = append(append([]byte{}, want[:12]...), want[16:]...)
		}
		if diff := cmp.Diff(want, f.Data); diff != "" || int(f.Length) != len(want) {
			t.Errorf("%s: length %d (-want +got)\n%s", c.name, f.Length, diff)
		}
		var p packet.Packet
		if err := packet.Parse(r.Link(), f.Data, &p); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.taken && p.VLAN != c.inner {
			t.Errorf("%s: the inner identifier is %d", c.name, p.VLAN)
		}
		if f.VLAN != 0 {
			p.VLAN = f.VLAN
		}
		if p.VLAN != c.vlan || p.Protocol != udp || p.DstPort != 2 || p.Known&flow.HasBytes == 0 || p.Bytes != 44 && p.Bytes != 64 {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}

// TestTheKernelFiltersAsTheMachine does.
func TestTheKernelFiltersAsTheMachine(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &exporters), b.Send("b")
	kept := machine(t, &exporters, packet.Ethernet)
	var want [][]byte
	for _, s := range samples(t) {
		send(s.bytes)
		if !kept(s.bytes) {
			continue
		}
		b := s.bytes
		if e := binary.BigEndian.Uint16(b[12:]); e == 0x8100 || e == 0x88a8 {
			b = append(append([]byte{}, b[:12]...), b[16:]...)
		}
		want = append(want, b[:min(len(b), Snap)])
	}
	// What is tagged passes in the machine; the kernel looks behind a tag that it
	// takes off, and finds a tracer.
	got := take(t, r, len(want)-1)
	for i, w := range want {
		if len(got) > i && string(got[i].Data) == string(w) {
			continue
		}
		var d packet.Datagram
		if packet.ParseUDP(packet.Ethernet, w, &d) != nil || d.Dst.Port() != tracerPort {
			t.Fatalf("frame %d: %x, want %x", i, got[i].Data, w)
		}
		got = slices.Insert(got, i, Frame{Data: w})
	}
}

// tun makes a tun device that is up, and returns its file.
func tun(t *testing.T, n *netns.Namespace, name string) *os.File {
	fd := -1
	err := n.Do(func() (err error) { fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); return err })
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	q, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	q.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, q); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "tun")
	t.Cleanup(func() { f.Close() })
	n.IP("link set " + name + " up")
	return f
}

func TestATunnelHasNoLinkLayer(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	n := netns.New(t)
	device := tun(t, n, "tun0")
	n.IP("addr add 10.0.0.1/24 dev tun0")
	r := opened(t, n, "tun0", &exporters)
	if r.Link() != packet.Raw {
		t.Errorf("link type %d", r.Link())
	}
	var want [][]byte
	for _, s := range samples(t) {
		if !isIP(s.bytes) {
			continue
		}
		b := s.bytes[14:]
		if _, err := device.Write(b); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if s.keep {
			want = append(want, b[:min(len(b), Snap)])
		}
	}
	got := take(t, r, len(want))
	for i, w := range want {
		if string(got[i].Data) != string(w) || got[i].Outgoing {
			t.Errorf("packet %d: %x, want %x", i, got[i].Data, w)
		}
	}
	// And what is sent into it.
	err := n.Do(func() error {
		c, err := net.Dial("udp", "10.0.0.9:53")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f := take(t, r, 1)[0]
	var d packet.Datagram
	if err := packet.ParseUDP(r.Link(), f.Data, &d); err != nil || !f.Outgoing || string(d.Payload) != "hello" || f.Length != 33 {
		t.Errorf("%v: %+v", err, f)
	}
}

// TestWireGuardHasNoLinkLayer where the kernel has it: what is sent to a peer that is not
// there is seen before it is encrypted.
func TestWireGuardHasNoLinkLayer(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	n := netns.New(t)
	if out, err := exec.Command("ip", "-n", n.Name, "link", "add", "wg0", "type", "wireguard").CombinedOutput(); err != nil {
		t.Logf("this kernel has no WireGuard: %s", out)
		return
	}
	n.IP("addr add 10.0.0.1/24 dev wg0")
	n.IP("link set wg0 up")
	r := opened(t, n, "wg0", &Filter{})
	err := n.Do(func() error {
		c, err := net.Dial("udp", "10.0.0.9:53")
		if err != nil {
			return err
		}
		defer c.Close()
		c.Write([]byte("hello")) // there is no such peer
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f := take(t, r, 1)[0]
	var d packet.Datagram
	if err := packet.ParseUDP(r.Link(), f.Data, &d); err != nil || r.Link() != packet.Raw || string(d.Payload) != "hello" {
		t.Errorf("%v: link type %d, %+v", err, r.Link(), f)
	}
}
