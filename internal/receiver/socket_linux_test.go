// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/tracer"
)

func TestTheTTLTellsTheHops(t *testing.T) {
	for text, option := range map[string][2]int{"127.0.0.1:0": {unix.IPPROTO_IP, unix.IP_TTL}, "[::1]:0": {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}} {
		s, err := Listen(netip.MustParseAddrPort(text), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		type datagram struct {
			from netip.AddrPort
			size int
			hops int
		}
		came := make(chan datagram, 8) // closed when Run is done; large enough
		ctx, cancel := context.WithCancel(t.Context())
		addr := s.Addr()
		go func() {
			s.Run(ctx, func(b []byte, from netip.AddrPort, hops int, now time.Time) { came <- datagram{from, len(b), hops} })
			close(came)
		}()
		c, err := net.Dial("udp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := c.(*net.UDPConn).SyscallConn()
		for _, x := range []struct{ ttl, size, hops, came int }{{255, 500, 0, 500}, {250, 1232, 5, 1232}, {1, 1500, 254, 1233}} {
			raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), option[0], option[1], x.ttl) })
			if err != nil {
				t.Fatal(err)
			}
			c.Write(make([]byte, x.size))
			want := datagram{c.LocalAddr().(*net.UDPAddr).AddrPort(), x.came, x.hops}
			if got := <-came; got != want {
				t.Errorf("%s: %+v, want %+v", text, got, want)
			}
		}
		cancel()
		if _, open := <-came; open {
			t.Error("more came than was sent")
		}
	}
}

func TestAControlMessageOfAnotherKindTellsNothing(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 3), make([]byte, controlSize)} {
		if n := hopsOf(b); n != -1 {
			t.Errorf("%x: %d", b, n)
		}
	}
}

// cpu returns the time of this process on all processors.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFlood offers 100,000 datagrams a second on the loopback, one in ten of
// them a good one of a known key, and the others forgeries with the keys of known
// senders, new keys, tracers for others, and noise, in equal parts. It fails if
// one of the good ones is lost or the memory grows.
func BenchmarkFlood(b *testing.B) {
	const perSecond, senders = 100_000, 1000
	for b.Loop() {
		f := newFlood(b, senders)
		f.run(b, perSecond/20) // warm: a 20th of a second
		f.drain()
		before, heapBefore := f.counts(), heap()
		offered := f.run(b, 3*perSecond)
		used := f.stop()
		got := f.counts()
		for i := range got {
			got[i] -= before[i]
		}
		if got[Taken] != uint64(offered/10) {
			b.Errorf("%d good ones of known keys were taken, of %d; the system dropped %d", got[Taken], offered/10, f.overrun)
			for r, n := range got {
				b.Logf("%8d %s", n, Reason(r))
			}
		}
		if grown := heap() - heapBefore; grown > 4<<20 {
			b.Errorf("the heap grew by %d bytes", grown)
		}
		b.ReportMetric(float64(offered)/f.took.Seconds(), "offered/s")
		b.ReportMetric(float64(got[Taken])/f.took.Seconds(), "taken/s")
		b.ReportMetric(float64(offered)/used.Seconds(), "offered/s/core")
		b.ReportMetric(100*used.Seconds()/f.took.Seconds(), "%core")
	}
	b.ReportMetric(0, "ns/op")
}

type flood struct {
	r       *Receiver
	cancel  func()
	done    chan bool
	good    [][]byte
	bad     [][]byte
	fds     []int
	to      unix.Sockaddr
	took    time.Duration
	sent    int
	used    time.Duration
	sending time.Duration
	overrun uint64
	socket  *Socket
}

func newFlood(b *testing.B, senders int) *flood {
	f := &flood{done: make(chan bool)}
	ledger := NewLedger(4096)
	now := time.Now().UnixMilli()
	// Three senders a network: 127.0.NETWORK.0/24 of the loopback.
	network := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, byte(i % 40), 1}) }
	for i := range senders {
		for d := range int64(3) {
			for range 4 {
				ledger.Note(public(key(uint64(i))), says("a@example.net"), network(i), 0, now-(3-d)*day)
			}
		}
	}
	f.r = New(Options{Mine: func(a netip.Addr) bool { return a == mine }, Ledger: ledger, Rates: Rates(float64(runtime.NumCPU()), Cost()),
		Queue: 8192, Replays: 1 << 19, Networks: 4096, Workers: runtime.NumCPU()})
	var err error
	if f.socket, err = Listen(netip.MustParseAddrPort("127.0.0.1:0"), 16<<20); err != nil {
		b.Fatal(err)
	}
	port := f.socket.Addr().Port()
	f.to = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(port)}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go func() {
		running := make(chan bool)
		go func() {
			f.r.Run(ctx)
			close(running)
		}()
		f.socket.Run(ctx, f.r.Offer)
		<-running
		close(f.done)
	}()
	for i := range 80 { // 40 networks of good ones, and 40 of bad ones
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 255)
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(i), 1}})
		unix.Connect(fd, f.to)
		f.fds = append(f.fds, fd)
	}
	m := made(0)
	m.Contact = says("a@example.net").Contact
	for i := range 400_000 / 10 {
		m.Nonce, m.Seq = [8]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}, uint64(i)
		f.good = append(f.good, datagram(key(uint64(i%senders)), m))
	}
	for i := range 4000 {
		m.Nonce = [8]byte{2, byte(i >> 16), byte(i >> 8), byte(i)}
		d := datagram(key(uint64(i%senders)), m)
		switch i % 4 {
		case 0: // forged
			d[50] ^= 1
		case 1: // new
			d = datagram(key(1<<32+uint64(i)), m)
			d[60] ^= 1
		case 2: // for another
			m.To = netip.MustParseAddr("203.0.113.6")
			d = datagram(key(1<<32+uint64(i)), m)
			m.To = mine
		case 3: // noise
			d = d[8:]
		}
		f.bad = append(f.bad, d)
	}
	return f
}

// run sends so many, at 100,000 a second.
func (f *flood) run(b *testing.B, n int) int {
	runtime.GC()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start, used, thread := time.Now(), cpu(), threadCPU()
	for i := range n {
		d, fd := f.bad[i%len(f.bad)], f.fds[40+i%40]
		if i%10 == 0 {
			k := (f.sent + i) / 10
			d, fd = f.good[k], f.fds[k%1000%40]
		}
		for unix.Send(fd, d, 0) == unix.ENOBUFS {
		}
		if i%100 == 99 {
			if ahead := time.Duration(i)*10*time.Microsecond - time.Since(start); ahead > 0 {
				nap(ahead)
			}
		}
	}
	f.took = time.Since(start)
	f.drain()
	f.used, f.sending = cpu()-used, threadCPU()-thread
	f.sent += n
	return n
}

// drain waits until all that was offered was read and verified.
func (f *flood) drain() {
	idle := 0
	for last := uint64(0); idle < 5; time.Sleep(20 * time.Millisecond) {
		n := uint64(0)
		for _, x := range f.counts() {
			n += x
		}
		if idle++; n != last {
			idle, last = 0, n
		}
	}
}

func threadCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(1, &u) // RUSAGE_THREAD
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stop ends the receiver, and returns what it has used, without the sending.
func (f *flood) stop() time.Duration {
	f.overrun = f.socket.Overrun()
	f.cancel()
	<-f.done
	for _, fd := range f.fds {
		unix.Close(fd)
	}
	return f.used - f.sending
}

func (f *flood) counts() (n [Reasons]uint64) {
	for i := range n {
		n[i] = f.r.Counters.Results[i].Load()
	}
	return n
}

// TestASocketKeepsToItsShare of the time, whatever comes.
func TestASocketKeepsToItsShare(t *testing.T) {
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.Share = 0.2
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sending := make(chan bool) // closed in the end
	go func() {
		defer close(sending)
		for ctx.Err() == nil {
			c.Write(make([]byte, 600))
		}
	}()
	const cost = 100 * time.Microsecond
	start, busy, taken := time.Now(), time.Duration(0), 0
	done := make(chan bool) // likewise
	go func() {
		defer close(done)
		s.Run(ctx, func([]byte, netip.AddrPort, int, time.Time) {
			begin := time.Now()
			for time.Since(begin) < cost {
			}
			busy += time.Since(begin)
			taken++
		})
	}()
	time.Sleep(time.Second)
	cancel()
	<-done
	took := time.Since(start)
	<-sending
	if share := busy.Seconds() / took.Seconds(); share > 0.25 || taken < 100 {
		t.Errorf("it was busy for %.0f %% of the time, with %d datagrams", 100*share, taken)
	}
}

// TestOverrunIsCounted: what the kernel dropped, as nobody read.
func TestOverrunIsCounted(t *testing.T) {
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		c.Write(make([]byte, tracer.MaxDatagram))
	}
	if s.Overrun() == 0 {
		t.Error("none was counted")
	}
}
