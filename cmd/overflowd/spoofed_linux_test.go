// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
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
)

// datagramFrame is a UDP datagram in an Ethernet frame to everybody.
func datagramFrame(src, dst string, port uint16) []byte {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 9)
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp, 999)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], 8)
	if a.Is4() {
		ip := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0}
		return append(append(append(append(append(f, 8, 0), ip...), a.AsSlice()...), b.AsSlice()...), append(udp, make([]byte, 18)...)...)
	}
	ip := []byte{0x60, 0, 0, 0, 0, 8, 17, 64}
	return append(append(append(append(append(f, 0x86, 0xdd), ip...), a.AsSlice()...), b.AsSlice()...), udp...)
}

type evidenceLine struct {
	Flowdata struct {
		Data struct {
			Saddr string
			Dport uint16
		}
	}
	Metadata struct{ Class string }
	Evidence struct {
		Spoofed, Method, Point string
		Suspicion              []string
	}
}

// TestWhoIsSpoofed runs the program on a router between a LAN and two hosts of the
// Internet, and compares what it says of packets with how they were made.
func TestWhoIsSpoofed(t *testing.T) {
	lan, router, wan0, wan1 := netns.New(t), netns.New(t), netns.New(t), netns.New(t)
	for _, n := range []*netns.Namespace{lan, router, wan0, wan1} {
		n.Set("ipv6.conf.all.disable_ipv6", "0")
		n.Set("ipv6.conf.default.disable_ipv6", "0")
		n.Set("ipv4.conf.all.rp_filter", "0")
		n.Set("ipv4.conf.default.rp_filter", "0")
	}
	router.Veth("lan", lan, "eth0")
	router.Veth("wan0", wan0, "eth0")
	router.Veth("wan1", wan1, "eth0")
	for _, x := range []string{
		"addr add 45.83.1.1/24 dev lan", "addr add 91.200.16.2/24 dev wan0", "addr add 91.200.17.2/24 dev wan1",
		"addr add 2600:1:1:1::1/64 dev lan nodad", "addr add 2600:f::2/64 dev wan0 nodad",
		"route add default via 91.200.16.1", "route add 77.1.1.0/24 via 91.200.17.1", "route add 10.1.0.0/16 via 45.83.1.9",
		"route add default via 2600:f::1", "route add unreachable 2600:1:1::/56", "route add 2600:7::/32 via 2600:1:1:1::9",
	} {
		router.IP(x)
	}
	router.Set("ipv4.ip_forward", "1")
	wan0.IP("addr add 91.200.16.1/24 dev eth0")
	cmd := exec.Command("ip", "netns", "exec", router.Name, buildRelease(t), "-i", "lan:lan", "-i", "wan0:wan", "-i", "wan1:wan",
		"-r", "1", "--user", "", "--state", t.TempDir(), "--status", t.TempDir()+"/socket")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := make(chan evidenceLine, 1000)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(stdout)
		for s.Scan() {
			var l evidenceLine
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				panic(err)
			}
			lines <- l
		}
	}()
	send := map[string]func(...[]byte){"lan": lan.Send("eth0"), "wan0": wan0.Send("eth0"), "wan1": wan1.Send("eth0")}
	port := uint16(20000)
	// is sends a packet and compares; the first ones are sent until the program captures.
	is := func(what, from, src, dst, want string) {
		t.Helper()
		port++
		for try := 0; ; try++ {
			frame := datagramFrame(src, dst, port)
			if strings.HasPrefix(what, "tagged") {
				frame = append(append(append([]byte{}, frame[:12]...), 0x81, 0, 0, 10), frame[12:]...)
			}
			send[from](frame)
			timeout := time.After(time.Second)
			for {
				select {
				case l, ok := <-lines:
					if !ok {
						t.Fatalf("the program ended: %s", stderr.String())
					}
					if l.Flowdata.Data.Dport != port || l.Flowdata.Data.Saddr != src {
						continue
					}
					got := strings.TrimSpace(l.Evidence.Spoofed + " " + l.Evidence.Method)
					if got != want || l.Evidence.Point != from[:3] {
						t.Errorf("%s: from %s at %s: %s at %q, want %s", what, src, from, got, l.Evidence.Point, want)
					}
					suspected := len(l.Evidence.Suspicion) > 0
					if suspected != strings.HasPrefix(want, "yes") || suspected != (l.Metadata.Class == "SUSPICIOUS") {
						t.Errorf("%s: suspicion %v, class %s", what, l.Evidence.Suspicion, l.Metadata.Class)
					}
					return
				case <-timeout:
				}
				break
			}
			if try == 20 {
				t.Fatalf("%s: nothing is said; %s", what, stderr.String())
			}
		}
	}
	const far, near = "8.8.4.4", "45.83.1.7"
	is("honest", "lan", near, far, "no prefix")
	is("tagged: of another LAN on the same wire", "lan", near, far, "unknown")
	is("spoofed from the LAN", "lan", "8.8.8.8", far, "yes prefix")
	is("the router's address from the LAN", "lan", "45.83.1.1", far, "yes own")
	is("behind a router of the LAN", "lan", "10.1.2.3", far, "no prefix")
	is("beside it", "lan", "10.2.2.3", far, "yes prefix")
	is("without an address yet", "lan", "0.0.0.0", "255.255.255.255", "unknown")
	is("link-local", "lan", "fe80::5", "2600:9::1", "unknown")
	is("honest, IPv6", "lan", "2600:1:1:1::7", "2600:9::1", "no prefix")
	is("behind a router of the LAN, IPv6", "lan", "2600:7:1::7", "2600:9::1", "no prefix")
	is("delegated, but not to this LAN", "lan", "2600:1:1:2::7", "2600:9::1", "yes prefix")
	is("spoofed from the LAN, IPv6", "lan", "2600:9::9", "2600:9::1", "yes prefix")
	is("spoofed from the Internet as the LAN", "wan0", near, "45.83.1.8", "yes prefix")
	is("likewise, at the other", "wan1", near, "45.83.1.8", "yes prefix")
	is("as the router", "wan0", "91.200.16.2", near, "yes own")
	is("honest or not", "wan0", "8.8.8.8", near, "unknown")
	is("a private address", "wan0", "10.9.9.9", near, "yes special")
	is("a neighbour", "wan0", "91.200.16.77", near, "unknown")
	is("a neighbour of the other WAN", "wan0", "91.200.17.77", near, "unknown")
	is("asymmetric", "wan0", "77.1.1.1", near, "unknown")
	is("symmetric", "wan1", "77.1.1.1", near, "unknown")
	is("delegated to us", "wan0", "2600:1:1:2::7", "2600:1:1:1::7", "yes prefix")
	is("of the LAN, IPv6", "wan0", "2600:1:1:1::8", "2600:1:1:1::7", "yes prefix")
	is("honest or not, IPv6", "wan0", "2600:9::9", "2600:1:1:1::7", "unknown")
	is("unique local", "wan0", "fd00::9", "2600:1:1:1::7", "yes special")
	router.Set("ipv4.conf.wan0.rp_filter", "1")
	is("asymmetric, but routes are said to be the same both ways", "wan0", "77.1.1.2", near, "yes route")
	is("likewise, only the default route is there", "wan0", "8.8.8.9", near, "unknown")
	router.Set("ipv4.conf.wan0.rp_filter", "0")

	is("not served yet", "lan", "45.84.0.7", far, "yes prefix")
	is("likewise, from the Internet", "wan0", "45.84.0.7", near, "unknown")
	change := func(words string) {
		t.Helper()
		router.IP(words)
		time.Sleep(100 * time.Millisecond) // the kernel tells the last of it later; meanwhile it is unknown
	}
	change("addr add 45.84.0.1/24 dev lan")
	is("a prefix that was added", "lan", "45.84.0.8", far, "no prefix")
	is("likewise, from the Internet", "wan0", "45.84.0.8", near, "yes prefix")
	change("addr del 45.84.0.1/24 dev lan")
	is("one that was just taken away", "lan", "45.84.0.9", far, "unknown")
	is("likewise, from the Internet", "wan0", "45.84.0.9", near, "unknown")
	change("addr add 2600:1:1:3::1/64 dev lan nodad")
	is("a part of a delegated prefix that was added", "lan", "2600:1:1:3::7", "2600:9::1", "no prefix")
	change("route add 10.2.0.0/16 via 45.83.1.9")
	is("a route that was added", "lan", "10.2.2.4", far, "no prefix")
	router.IP("link set wan1 down")
	router.IP("link set lan down")
	router.IP("link set lan up")
	router.Ready("lan")
	lan.Ready("eth0")
	time.Sleep(100 * time.Millisecond)
	is("when the LAN was away", "lan", near, far, "no prefix")

	// What the router sends bears its own address.
	for deadline := time.Now().Add(10 * time.Second); ; {
		err := router.Do(func() error {
			c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(91, 200, 16, 1), Port: 20})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("x"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for !found {
			select {
			case l := <-lines:
				if found = l.Flowdata.Data.Dport == 20; found && fmt.Sprint(l.Evidence) != "{no own wan []}" {
					t.Errorf("what the router sends: %+v", l.Evidence)
				}
				continue
			case <-time.After(200 * time.Millisecond):
			}
			break
		}
		if found {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is said of what the router sends")
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// TestRecordedTrafficIsHardlySuspected: two recorded exports of real networks, of which
// no attack is known.
func TestRecordedTrafficIsHardlySuspected(t *testing.T) {
	dir := os.Getenv("OVERFLOWD_CAPTURES")
	if dir == "" {
		t.Skip("OVERFLOWD_CAPTURES names no folder of recorded exports")
	}
	program := buildRelease(t)
	for name, least := range map[string]int{"netflow_4M.pcap": 70_000, "sflow.pcap": 5_000} {
		out, err := exec.Command(program, "-f", filepath.Join(dir, name), "-r", "1", "--state", t.TempDir()).Output()
		if err != nil {
			t.Fatal(err)
		}
		all, suspected := bytes.Count(out, []byte("\n")), bytes.Count(out, []byte(`"class":"SUSPICIOUS"`))
		t.Logf("%s: %d of %d records are suspected", name, suspected, all)
		if all < least || suspected > all/1000 {
			t.Errorf("%s: %d of %d records are suspected", name, suspected, all)
		}
	}
}
