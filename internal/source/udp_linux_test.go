// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/selector"
)

// started is a UDP source on loopback with its feed; stop ends it.
func started(t *testing.T, run bool) (conn *net.UDPConn, u *UDP, feed *Feed, start func(), stop func()) {
	t.Helper()
	u, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"), []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := selector.New(1e-6)
	feed = newFeed(s, make(chan Hit, 1), false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	running := false
	start = func() {
		running = true
		go func() { done <- u.Run(ctx, feed) }()
	}
	stop = func() {
		cancel()
		if running {
			running = false
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	if conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.Addr())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if run {
		start()
	}
	return conn, u, feed, start, stop
}

// until waits up to 20 s: a real socket has no synthetic clock.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up on %s", what)
		}
	}
}

// v9 returns a datagram of v9: the template 256 of addresses, packets, bytes and
// so many bytes more, and records of it.
func v9(template bool, more, records int) []byte {
	b := make([]byte, 20)
	b[1], b[8] = 9, 0x60
	u16 := func(n ...int) {
		for _, x := range n {
			b = binary.BigEndian.AppendUint16(b, uint16(x))
		}
	}
	if template {
		u16(0, 4+4+5*4, 256, 5, 8, 4, 12, 4, 2, 4, 1, 4, 210, more)
	}
	if records > 0 {
		u16(256, 4+records*(16+more))
		for range records {
			b = append(b, 192, 0, 2, 1, 192, 0, 2, 2, 0, 0, 0, 1, 0, 0, 0, 100)
			b = append(b, make([]byte, more)...)
		}
	}
	return b
}

// TestNoDatagramIsLostWhenTemplatesAreRefreshed: goflow2's workers lose one at
// nearly each refresh, as the data overtake the template.
func TestNoDatagramIsLostWhenTemplatesAreRefreshed(t *testing.T) {
	conn, _, feed, _, stop := started(t, true)
	const n = 5000
	want := uint64(0)
	for i := range n {
		// The definition changes each time: 20 data sets read with the old one
		// would have another number of records.
		more := i / 20 % 7
		b := v9(false, more, 10)
		if i%20 == 0 {
			b = v9(true, more, 0)
		} else {
			want += 10
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 { // no faster than it is read
			until(t, "the datagrams", func() bool { return feed.Counters.Datagrams.Load() == uint64(i+1) })
		}
	}
	stop()
	c := &feed.Counters
	if c.Records.Load() != want || c.Packets.Load() != want || c.Bytes.Load() != 100*want || c.Overrun.Load() != 0 {
		t.Errorf("%d records of %d packets and %d bytes, want %d; the system dropped %d", c.Records.Load(), c.Packets.Load(), c.Bytes.Load(), want, c.Overrun.Load())
	}
	for r := range Reasons {
		if n := c.Drops[r].Load(); n != 0 {
			t.Errorf("%d %ss %s", n, r.Noun(), r)
		}
	}
}

func TestWhatTheKernelDropsIsCounted(t *testing.T) {
	if testing.Short() {
		return // an emulated processor: qemu does not pass SO_MEMINFO on
	}
	conn, u, feed, start, stop := started(t, false)
	const n = 10_000
	b := v5(30)
	for range n { // before anybody reads: more than the buffer holds
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if u.socket.buffer > n*len(b) {
		t.Fatalf("the buffer holds %d bytes", u.socket.buffer)
	}
	start()
	c := &feed.Counters
	until(t, "the end", func() bool {
		u.CountOverrun(feed)
		return c.Overrun.Load() != 0 && c.Datagrams.Load()+c.Overrun.Load() >= n
	})
	before := c.Overrun.Load()
	c.Overrun.Store(0)
	stop() // and at the end it is counted once more
	if got := c.Datagrams.Load() + c.Overrun.Load(); got != n || c.Overrun.Load() != before {
		t.Errorf("%d read and %d dropped of %d", c.Datagrams.Load(), c.Overrun.Load(), n)
	}
}

func TestASocketThatFailsEndsTheSource(t *testing.T) {
	_, u, feed, _, _ := started(t, false)
	u.Close()
	u.Close() // twice does no harm
	done := make(chan error, 1)
	go func() { done <- u.Run(context.Background(), feed) }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on for ever")
	}
}

func TestDatagramsOfEverySize(t *testing.T) {
	conn, _, feed, _, stop := started(t, true)
	for _, size := range []int{0, 1, 65507} { // the least and the most that there can be
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	long := v9(true, 0, 4000) // 64,048 bytes
	if _, err := conn.Write(long); err != nil {
		t.Fatal(err)
	}
	until(t, "the long one", func() bool { return feed.Counters.Records.Load() == 4000 })
	stop()
	if c := &feed.Counters; c.Drops[Short].Load() != 2 || c.Drops[Version].Load() != 1 {
		t.Errorf("%d short, %d of another version", c.Drops[Short].Load(), c.Drops[Version].Load())
	}
}
