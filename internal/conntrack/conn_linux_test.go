// SPDX-License-Identifier: BSD-3-Clause

//go:build !mips && !mipsle && !mips64 && !mips64le

package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/flow"
)

func dump(t *testing.T, c *Conn) map[uint32]Entry {
	t.Helper()
	entries := make(map[uint32]Entry)
	if err := c.Dump(func(e *Entry) error { entries[e.ID] = *e; return nil }); err != nil {
		t.Fatal(err)
	}
	return entries
}

// traffic makes connections of every kind that a router sees.
func (l *lab) traffic() {
	l.t.Helper()
	l.talk(l.inner, "udp", "198.51.100.2:53", make([]byte, 77)) // not counted
	l.sysctl("net.netfilter.nf_conntrack_acct=1")
	l.talk(l.inner, "tcp", "198.51.100.2:80", make([]byte, 1000))
	l.talk(l.inner, "tcp", "[2001:db8::2]:80", make([]byte, 5000))
	l.talk(l.outer, "tcp", "198.51.100.1:8080", make([]byte, 2000))
	l.talk(l.inner, "udp", "198.51.100.2:53", make([]byte, 100))
	l.talk(l.inner, "udp", "[2001:db8::2]:53", make([]byte, 200))
	ping := []byte{8, 0, 0xf6, 0xfd, 1, 2, 0, 0}
	l.talk(l.inner, "ip4:icmp", "198.51.100.2", ping)
	l.talk(l.inner, "ip6:ipv6-icmp", "2001:db8::2", []byte{128, 0, 0, 0, 1, 2, 0, 0})
	l.say(l.inner, "ip4:47", "198.51.100.2", []byte{0, 0, 8, 0, 0x45, 0, 0, 20})
	l.say(l.inner, "ip6:253", "2001:db8::2", []byte("who knows"))
	l.say(l.inner, "udp", "10.0.0.1:7005", make([]byte, 10))
	l.say(l.inner, "udp", "10.0.0.1:7006", make([]byte, 10))
}

func TestConnectionsAreThoseThatConntrackLists(t *testing.T) {
	l := newLab(t)
	l.traffic()
	c := l.dial()
	var got, want map[uint32]Entry
	for range 20 { // until nothing moves any more
		got = dump(t, c)
		want = byID(t, l.exec("conntrack", "-L", "-o", "extended,id"))
		if cmp.Equal(got, want) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	kinds := make(map[string]int)
	for _, e := range got {
		kinds[fmt.Sprintf("protocol %d in IPv%d", e.Original.Protocol, e.Original.Family)]++
		if e.Zone != 0 {
			kinds[fmt.Sprintf("zone %d", e.Zone)]++
		}
		if !e.Counted {
			kinds["uncounted"]++
		}
		if r := reverse(&e.Original); r != e.Reply {
			kinds["translated"]++
		}
	}
	if diff := cmp.Diff(map[string]int{
		"protocol 1 in IPv4": 1, "protocol 6 in IPv4": 2, "protocol 6 in IPv6": 1,
		"protocol 17 in IPv4": 4, "protocol 17 in IPv6": 1, "protocol 47 in IPv4": 1, "protocol 58 in IPv6": 1,
		"protocol 253 in IPv6": 1, "zone 5": 1, "zone 6": 1, "uncounted": 1, "translated": 10,
	}, kinds); diff != "" {
		t.Errorf("connections (-want +got):\n%s", diff)
	}
}

// TestTheOtherSideIsWhatWasSeenThere looks at both sides of the router at once.
func TestTheOtherSideIsWhatWasSeenThere(t *testing.T) {
	l := newLab(t)
	inner, outer := l.sniff("to-inner"), l.sniff("to-outer")
	l.traffic()
	seen := map[string]map[flow.Key]bool{"inner": inner(), "outer": outer()}
	for k := range seen["inner"] { // what was for the router itself, and what says so
		if k.DstPort == 7005 || k.DstPort == 7006 || k.Protocol == protoICMP && k.DstPort>>8 == 3 {
			delete(seen["inner"], k)
		}
	}
	for k := range seen["outer"] {
		if k.Protocol == protoICMP && k.DstPort>>8 == 3 || k.Protocol == protoICMPv6 && k.DstPort>>8 < 128 {
			delete(seen["outer"], k)
		}
	}
	for k := range seen["inner"] {
		if k.Protocol == protoICMPv6 && k.DstPort>>8 < 128 {
			delete(seen["inner"], k)
		}
	}
	c := l.dial()
	all := dump(t, c)
	for side, far := range map[string]string{"inner": "outer", "outer": "inner"} {
		others := make(map[flow.Key]bool)
		for k := range seen[side] {
			e, err := c.Lookup(&k)
			switch icmp := k.Protocol == protoICMP || k.Protocol == protoICMPv6; {
			case icmp && err != ErrNone:
				t.Errorf("ICMP was looked up: %v", err)
			case icmp:
				for _, candidate := range all {
					if _, ok := candidate.Other(&k); ok {
						e = candidate
					}
				}
			case err != nil:
				t.Errorf("%s: %v: %+v", side, err, k)
				continue
			}
			if diff := cmp.Diff(all[e.ID], e); diff != "" {
				t.Errorf("looked up and listed differ:\n%s", diff)
			}
			other, ok := e.Other(&k)
			if !ok {
				t.Errorf("%s: %+v has no other side in %+v", side, k, e)
			}
			others[other] = true
		}
		if diff := cmp.Diff(seen[far], others); diff != "" {
			t.Errorf("what was seen at the %s side, and what is told at the %s side (-want +got):\n%s", far, side, diff)
		}
	}
	if n := len(seen["inner"]); n < 16 {
		t.Errorf("only %d keys were seen", n)
	}
}

func TestWhatIsNoConnectionIsNotFound(t *testing.T) {
	l := newLab(t)
	l.traffic()
	c := l.dial()
	for name, k := range map[string]flow.Key{
		"a port that nobody uses":      key(17, "10.0.0.2", "198.51.100.2", 1, 53),
		"a protocol that nobody uses":  key(132, "10.0.0.2", "198.51.100.2", 1, 2),
		"an address that nobody has":   key(6, "2001:db8::7", "2001:db8::2", 1, 80),
		"a protocol without ports":     key(253, "10.0.0.2", "198.51.100.2", 0, 0),
		"ICMP":                         key(1, "10.0.0.2", "198.51.100.2", 0, 8<<8),
		"ICMPv6":                       key(58, "fd00::2", "2001:db8::2", 0, 128<<8),
		"protocol 0":                   key(0, "10.0.0.2", "198.51.100.2", 0, 0),
		"nothing":                      {},
		"an unknown family":            {Protocol: 17, Family: 5},
		"an ICMP error of no one else": key(1, "198.51.100.2", "198.51.100.1", 0, 3<<8|3),
	} {
		if e, err := c.Lookup(&k); err != ErrNone || e != (Entry{}) {
			t.Errorf("%s: %v, %+v", name, err, e)
		}
	}
	zones := 0
	for _, e := range dump(t, c) {
		switch e.Zone {
		case 5: // both directions
			if _, err := c.Lookup(&e.Original); err != ErrNone {
				t.Errorf("in a zone: %v", err)
			}
			zones++
		case 6: // the original direction; the other is found
			if got, err := c.Lookup(&e.Original); err != nil || got != e {
				t.Errorf("half in a zone: %v: %s", err, cmp.Diff(e, got))
			}
			zones++
		}
	}
	if zones != 2 {
		t.Errorf("%d connections in zones", zones)
	}
}

// TestOnlyTheKernelAnswers sends answers that are too late, and forged ones.
func TestOnlyTheKernelAnswers(t *testing.T) {
	l := newLab(t)
	l.traffic()
	c := l.dial()
	all := dump(t, c)
	var e Entry
	for _, e = range all {
		if e.Original.Protocol == 6 {
			break
		}
	}
	// The answer to a request whose sender has given up.
	k := key(17, "10.0.0.2", "198.51.100.2", 1, 53)
	if _, err := c.conn.Send(netlink.Message{Header: netlink.Header{Type: typeGet, Flags: netlink.Request}, Data: appendQuery(nil, &k)}); err != nil {
		t.Fatal(err)
	}
	// What another process sends, with the sequence numbers to come.
	last, err := c.conn.Send(netlink.Message{Header: netlink.Header{Type: typeGet, Flags: netlink.Request | netlink.Dump}, Data: make([]byte, 4)})
	if err != nil {
		t.Fatal(err)
	}
	messages, _ := recorded(t, "dump.bin")
	l.in(l.router, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for i := range uint32(5) {
			m := netlink.Message{
				Header: netlink.Header{Length: uint32(16 + len(messages[0].Payload)), Type: typeNew, Sequence: last.Header.Sequence + i, PID: c.conn.PID()},
				Data:   messages[0].Payload,
			}
			b, err := m.MarshalBinary()
			if err != nil {
				return err
			}
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: c.conn.PID()}); err != nil {
				return err
			}
		}
		return nil
	})
	if got, err := c.Lookup(&e.Original); err != nil || got != e {
		t.Errorf("%v: %s", err, cmp.Diff(e, got))
	}
}

func TestTheKernelIsNotWaitedForForEver(t *testing.T) {
	l := newNamespace(t, "alone")
	c := l.dial()
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := c.reader.read(true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, %v", b, err)
	}
	if b, err := c.reader.read(false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, %v", b, err)
	}
}

// many makes connections within the router, which it sends to itself.
func (l *lab) many(n int) {
	l.t.Helper()
	l.in(l.router, func() error {
		for base := 0; base < n; base += 1000 {
			pc, err := net.ListenUDP("udp4", nil)
			if err != nil {
				return err
			}
			for i := range min(1000, n-base) {
				pc.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(1+i)))
			}
			pc.Close()
		}
		return nil
	})
}

func TestADumpTakesTheSameMemoryWhateverItsSize(t *testing.T) {
	l := newNamespace(t, "many")
	c := l.dial()
	count := 0
	f := func(e *Entry) error { count++; return nil }
	measure := func() (objects, size uint64) { // the least of several, as the runtime allocates too
		objects, size = 1<<32, 1<<32
		for range 5 {
			count = 0
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := c.Dump(f); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			objects, size = min(objects, after.Mallocs-before.Mallocs), min(size, after.TotalAlloc-before.TotalAlloc)
		}
		return objects, size
	}
	measure() // which makes the buffer
	l.many(100)
	objects, size := measure()
	few := count
	l.many(8000)
	manyObjects, manySize := measure()
	t.Logf("%d connections: %d objects, %d bytes; %d connections: %d objects, %d bytes", few, objects, size, count, manyObjects, manySize)
	if few < 100 || count < 8000 {
		t.Fatalf("only %d and %d connections", few, count)
	}
	if manyObjects > objects+5 || manySize > size+512 { // of the runtime
		t.Errorf("%d objects and %d bytes for %d connections, %d and %d for %d", objects, size, few, manyObjects, manySize, count)
	}
	if listed := bytes.Count(l.exec("conntrack", "-L"), []byte("\n")); listed != count {
		t.Errorf("%d connections, conntrack lists %d", count, listed)
	}

	// A dump that its caller gives up, and the Conn after it.
	enough := errors.New("enough")
	calls := 0
	if err := c.Dump(func(*Entry) error { calls++; return enough }); err != enough || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	var first Entry
	c.Dump(func(e *Entry) error {
		if e.Original.Protocol == 17 {
			first = *e
		}
		return nil
	})
	if e, err := c.Lookup(&first.Original); err != nil || e != first {
		t.Errorf("after a dump that was given up: %v: %s", err, cmp.Diff(first, e))
	}
}

func TestAccountingIsOfTheNamespace(t *testing.T) {
	l := newNamespace(t, "count")
	for _, want := range []bool{false, true, false} {
		l.sysctl(map[bool]string{false: "net.netfilter.nf_conntrack_acct=0", true: "net.netfilter.nf_conntrack_acct=1"}[want])
		var got bool
		l.in(l.router, func() (err error) { got, err = Accounting(); return err })
		if got != want {
			t.Errorf("accounting is %v", got)
		}
	}
	if _, err := readAccounting(t.TempDir() + "/nothing"); !errors.Is(err, ErrMissing) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without connection tracking: %v", err)
	}
}
