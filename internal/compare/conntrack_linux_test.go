// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	timo "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
)

// connections makes a network namespace with some connections of its own, n of
// which have counters, and opens ti-mo/conntrack and ours there.
func connections(t testing.TB, n int) (*timo.Conn, *conntrack.Conn) {
	netns.Need(t, "conntrack", "ip", "nft", "sysctl")
	ns := fmt.Sprintf("compare%d", os.Getpid())
	script := `set -e
ip link set lo up
sysctl -qw net.netfilter.nf_conntrack_acct=1
nft 'table inet track { chain c { type filter hook output priority 0; ct state new accept; }; }'
conntrack -I -p tcp -s 10.0.0.2 -d 198.51.100.2 --sport 5000 --dport 80 -t 100 --state ESTABLISHED -r 198.51.100.2 -q 198.51.100.1 --reply-port-src 80 --reply-port-dst 5000
conntrack -I -p udp -s 10.0.0.2 -d 198.51.100.2 --sport 5000 --dport 53 -t 100 -w 7
conntrack -I -p udp -s fd00::2 -d 2001:db8::2 --sport 5000 --dport 53 -t 100
conntrack -I -p icmp -s 10.0.0.2 -d 198.51.100.2 --icmp-type 8 --icmp-code 0 --icmp-id 9 -t 100
conntrack -I -p icmpv6 -s fd00::2 -d 2001:db8::2 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 9 -t 100
conntrack -I -p sctp -s 10.0.0.2 -d 198.51.100.2 --sport 5000 --dport 9 -t 100 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2`
	run := func(name string, args ...string) {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	run("ip", "netns", "add", ns)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	run("ip", "netns", "exec", ns, "sh", "-c", script)
	var theirs *timo.Conn
	var ours *conntrack.Conn
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		result <- func() error {
			fd, err := unix.Open("/var/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return err
			}
			pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				return err
			}
			defer pc.Close()
			for port := range n {
				pc.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1})
			}
			if theirs, err = timo.Dial(&netlink.Config{}); err != nil {
				return err
			}
			ours, err = conntrack.Dial()
			return err
		}()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); ours.Close() })
	return theirs, ours
}

func entry(f *timo.Flow) conntrack.Entry {
	return conntrack.Entry{
		ID: f.ID, Zone: f.Zone, Original: key(f.TupleOrig), Reply: key(f.TupleReply), Counted: true,
		Packets: [2]uint64{f.CountersOrig.Packets, f.CountersReply.Packets},
		Bytes:   [2]uint64{f.CountersOrig.Bytes, f.CountersReply.Bytes},
	}
}

func key(t timo.Tuple) flow.Key {
	k := flow.Key{Protocol: t.Proto.Protocol, SrcPort: t.Proto.SourcePort, DstPort: t.Proto.DestinationPort, Family: flow.IPv4}
	if t.IP.IsIPv6() {
		k.Family = flow.IPv6
	}
	if t.Proto.ICMPv4 || t.Proto.ICMPv6 {
		k.SrcPort, k.DstPort = 0, uint16(t.Proto.ICMPType)<<8|uint16(t.Proto.ICMPCode)
	}
	copy(k.Src[:], t.IP.SourceAddress.AsSlice())
	copy(k.Dst[:], t.IP.DestinationAddress.AsSlice())
	return k
}

func TestConnectionsAreThoseThatTiMoConntrackReads(t *testing.T) {
	theirs, ours := connections(t, 1000)
	flows, err := theirs.Dump(nil)
	if err != nil {
		t.Fatal(err)
	}
	want, got := make(map[uint32]conntrack.Entry), make(map[uint32]conntrack.Entry)
	for _, f := range flows {
		want[f.ID] = entry(&f)
	}
	if err := ours.Dump(func(e *conntrack.Entry) error { got[e.ID] = *e; return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	protocols := make(map[uint8]bool)
	for _, e := range got {
		protocols[e.Original.Protocol] = true
	}
	if len(got) < 1006 || !maps.Equal(protocols, map[uint8]bool{1: true, 6: true, 17: true, 58: true, 132: true}) {
		t.Errorf("only %d connections, of the protocols %v", len(got), protocols)
	}
}

// BenchmarkConntrackDump lists about 10,000 connections.
func BenchmarkConntrackDump(b *testing.B) {
	theirs, ours := connections(b, 10000)
	b.Run("overflowd", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := ours.Dump(func(*conntrack.Entry) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ti-mo", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := theirs.Dump(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
