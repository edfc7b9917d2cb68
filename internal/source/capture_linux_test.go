// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/selector"
)

// udpFrame is a frame of Ethernet with a datagram between two ports, of a size
// in layer 3.
func udpFrame(from, to uint16, size int) []byte {
	b := make([]byte, 14+size)
	copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0})
	binary.BigEndian.PutUint16(b[16:], uint16(size))
	b[22], b[23] = 64, 17
	copy(b[26:], []byte{10, 0, 0, 2, 10, 0, 0, 1})
	binary.BigEndian.PutUint16(b[34:], from)
	binary.BigEndian.PutUint16(b[36:], to)
	binary.BigEndian.PutUint16(b[38:], uint16(size-20))
	return b
}

// capturing is a capture in a namespace, that does not run.
func capturing(t *testing.T, n *netns.Namespace, hits chan Hit, o Capturing) *Capture {
	t.Helper()
	if o.Rate == 0 {
		o.Rate = 1e-9
	}
	o.Selector = selector.New
	var c *Capture
	do := func() (err error) {
		c, err = NewCapture(NewWatch(context.Background(), Sink{Hits: hits}, 1024, nil), o)
		return err
	}
	err := error(nil)
	if n == nil {
		err = do()
	} else {
		err = n.Do(do)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// running runs a capture until the test is over.
func running(t *testing.T, n *netns.Namespace, c *Capture) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := n.Go(func() error { return c.Run(ctx) })
	over := false
	stop = func() {
		if over {
			return
		}
		over = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

// two is a router with a link to each of two hosts, the interfaces eth0 and eth1.
func two(t *testing.T) (router, host0, host1 *netns.Namespace) {
	router, host0, host1 = netns.New(t), netns.New(t), netns.New(t)
	router.Veth("eth0", host0, "to-router")
	router.Veth("eth1", host1, "to-router")
	return router, host0, host1
}

func TestInterfacesAreCountedEachByItself(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, host1 := two(t)
	hits := make(chan Hit, 10_000)
	c := capturing(t, router, hits, Capturing{Rate: 1, Interfaces: []Interface{{"eth0", WAN}, {"eth1", LAN}, {"lo", NoRole}}})
	indexes := map[uint32]int{}
	for i, x := range c.taps {
		indexes[uint32(x.ring.Index())] = i
	}
	stop := running(t, router, c)
	in0, in1, out1 := host0.Send("to-router"), host1.Send("to-router"), router.Send("eth1")
	for range 1000 {
		in0(udpFrame(1, 2, 60), udpFrame(1, 2, 1000))
		in1(udpFrame(3, 4, 80))
		out1(udpFrame(5, 6, 90))
	}
	until(t, "the packets", func() bool { return c.Counters.Packets.Load() >= 4000 })
	time.Sleep(200 * time.Millisecond) // no more come
	stop()
	want := []State{
		{Interface: Interface{"eth0", WAN}, Packets: 2000, Bytes: 1_060_000, Opened: 1},
		{Interface: Interface{"eth1", LAN}, Packets: 2000, Bytes: 170_000, Opened: 1},
		{Interface: Interface{"lo", NoRole}, Opened: 1},
	}
	for i, got := range c.States() {
		if got.Failure = nil; got != want[i] {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
	if n := &c.Counters; n.Packets.Load() != 4000 || n.Bytes.Load() != 1_230_000 || n.Flows.Load() != 3 || n.Hits.Load() != 4000 || n.Lost.Load()+n.Overrun.Load() != 0 {
		t.Errorf("%d packets, %d bytes, %d flows, %d hits, %d lost, %d dropped", n.Packets.Load(), n.Bytes.Load(), n.Flows.Load(), n.Hits.Load(), n.Lost.Load(), n.Overrun.Load())
	}
	close(hits)
	seen := map[uint16]int{}
	for h := range hits {
		r := &h.Record
		seen[r.SrcPort]++
		at, known := r.Ingress, flow.HasIngress
		if r.SrcPort == 5 {
			at, known = r.Egress, flow.HasEgress
		}
		if i, ok := indexes[at]; !ok || i != map[uint16]int{1: 0, 3: 1, 5: 1}[r.SrcPort] || r.Known&(flow.HasIngress|flow.HasEgress) != known || r.Protocol != 17 || r.Source.Protocol != flow.Capture || h.Selected != 1 {
			t.Fatalf("%+v", h)
		}
	}
	if seen[1] != 2000 || seen[3] != 1000 || seen[5] != 1000 {
		t.Errorf("hits %v", seen)
	}
}

func TestAnInterfaceThatIsNotThereIsWaitedFor(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, host1 := two(t)
	router.IP("link set dev eth1 down")
	c := capturing(t, router, nil, Capturing{Interfaces: []Interface{{"eth0", WAN}, {"eth1", LAN}, {"late", LAN}}})
	running(t, router, c)
	s := c.States()
	if !s[0].There || s[0].Failure != nil || s[2].There || !errors.Is(s[2].Failure, capture.ErrNoInterface) || s[2].Opened != 0 {
		t.Errorf("%+v", s)
	}
	host0.Send("to-router")(udpFrame(1, 2, 60))
	until(t, "a packet of the one that is there", func() bool { return c.States()[0].Packets == 1 })
	router.IP("link set dev eth1 up")
	host1.Ready("to-router")
	host1.Send("to-router")(udpFrame(1, 2, 60))
	until(t, "a packet of the one that was down", func() bool { return c.States()[1].Packets == 1 })
	router.Veth("late", host0, "late")
	until(t, "the one that is late", func() bool { return c.States()[2].There })
	host0.Send("late")(udpFrame(1, 2, 60))
	until(t, "a packet of the late one", func() bool { return c.States()[2].Packets == 1 })
	for i, s := range c.States() {
		if !s.There || s.Failure != nil || s.Opened != 1 {
			t.Errorf("interface %d: %+v", i, s)
		}
	}
}

// burden sends a packet each 0.2 ms to the router, over an interface that comes
// and goes.
func burden(t *testing.T, n *netns.Namespace, name string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := n.Go(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for f := udpFrame(1, 2, 60); ctx.Err() == nil; time.Sleep(200 * time.Microsecond) {
			q, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			if unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, q) == nil {
				unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: int(q.Uint32()), Protocol: 8}) // it may be gone by now
			}
		}
		return nil
	})
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// resumed tells how long it takes from now until packets of the first interface
// are counted.
func resumed(t *testing.T, c *Capture) time.Duration {
	t.Helper()
	start, before := time.Now(), c.States()[0].Packets
	until(t, "packets", func() bool { return c.States()[0].Packets > before })
	return time.Since(start)
}

// stopped waits until no packets are counted any more.
func stopped(t *testing.T, c *Capture) {
	t.Helper()
	last, since := c.States()[0].Packets, time.Now()
	until(t, "the end of the packets", func() bool {
		if n := c.States()[0].Packets; n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 150*time.Millisecond
	})
}

func TestCaptureResumesWhenAnInterfaceComesBack(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, _ := two(t)
	for _, auto := range []bool{false, true} {
		c := capturing(t, router, nil, Capturing{Rate: 1, Auto: auto, Interfaces: []Interface{{"eth0", WAN}, {"eth1", LAN}}})
		stop := running(t, router, c)
		burden(t, host0, "to-router")
		resumed(t, c)
		opened := uint64(1)
		for i, how := range []string{"removed", "removed and back at once", "down and up", "down, then removed", "removed", "removed and back at once", "down, then removed"} {
			if how == "down and up" || how == "down, then removed" {
				router.IP("link set dev eth0 down")
				stopped(t, c)
				if s := c.States()[0]; !s.There {
					t.Errorf("%s: %+v", how, s)
				}
			}
			if how == "down and up" {
				router.IP("link set dev eth0 up")
			} else {
				opened++
				router.IP("link del dev eth0")
				if how != "removed and back at once" {
					until(t, "the end of the interface", func() bool { return !c.States()[0].There })
					if s := c.States()[0]; !errors.Is(s.Failure, capture.ErrNoInterface) {
						t.Errorf("%s: %+v", how, s)
					}
				}
				router.Veth("eth0", host0, "to-router")
			}
			took := resumed(t, c)
			t.Logf("%s: resumed after %v", how, took)
			if took >= time.Second {
				t.Errorf("%d, %s: resumed after %v", i, how, took)
			}
			if s := c.States()[0]; !s.There || s.Failure != nil || s.Opened != opened || s.Dropped != 0 {
				t.Errorf("%s: %+v, want it to be opened %d times", how, s, opened)
			}
		}
		stop()
	}
}

// TestAFloodDoesNotHideThatAnInterfaceComesBack: the flood comes before the
// capture on its processor, so that there is always a block that was full.
func TestAFloodDoesNotHideThatAnInterfaceComesBack(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, host1 := two(t)
	one := unix.CPUSet{}
	if err := unix.SchedGetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	for i := 0; one.Count() > 1; i++ {
		one.Clear(i)
	}
	c := capturing(t, router, nil, Capturing{Interfaces: []Interface{{"eth0", WAN}, {"eth1", LAN}}})
	ctx, cancel := context.WithCancel(context.Background())
	results := []<-chan error{router.Go(func() error {
		if err := errors.Join(unix.SchedSetaffinity(0, &one), unix.Setpriority(unix.PRIO_PROCESS, 0, 19)); err != nil {
			return err
		}
		return c.Run(ctx)
	})}
	for range 6 {
		send, f := host0.Send("to-router"), udpFrame(1, 2, 200)
		results = append(results, host0.Go(func() error {
			err := unix.SchedSetaffinity(0, &one)
			for err == nil && ctx.Err() == nil {
				send(f)
			}
			return err
		}))
	}
	defer func() {
		cancel()
		for _, r := range results {
			if err := <-r; err != nil {
				t.Error(err)
			}
		}
	}()
	until(t, "a full ring", func() bool { return c.States()[0].Dropped > 0 })
	// It takes two turns of a thread that hardly gets any time, of a ring of 32,768 packets each.
	soon := 0
	for i := 0; i < 5 && soon < 3; i++ {
		start := c.States()[0].Packets
		router.IP("link del dev eth1")
		until(t, "the end of the interface", func() bool { return !c.States()[1].There })
		router.Veth("eth1", host1, "to-router")
		until(t, "the interface", func() bool { return c.States()[1].There })
		saw := c.States()[0].Packets - start
		t.Logf("resumed after %d packets", saw)
		if saw < 100_000 {
			soon++
		}
	}
	if soon < 3 {
		t.Errorf("resumed soon %d times of 5", soon)
	}
}

// within tells whether n is within five standard deviations of the binomial law:
// a right one is beyond them once in 1.7 million.
func within(n uint64, of, p float64) bool {
	return math.Abs(float64(n)-of*p) <= 5*math.Sqrt(of*p*(1-p))
}

func TestThinningKeepsTheRate(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, _ := two(t)
	send := host0.Send("to-router")
	for _, x := range []struct {
		thin uint32
		rate float64
	}{{1, 0.05}, {4, 0.05}, {16, 0.05}, {20, 0.05}, {3, 0.3}} {
		hits := make(chan Hit, 100_000)
		c := capturing(t, router, hits, Capturing{Rate: x.rate, Filter: capture.Filter{Thin: x.thin}, Interfaces: []Interface{{"eth0", WAN}}})
		stop := running(t, router, c)
		const sent = 40_000
		one := udpFrame(1, 2, 100)
		ring := c.taps[0].last
		for i := range sent {
			if send(one); i%2000 == 1999 { // no faster than it is read
				until(t, "the packets", func() bool { return c.States()[0].Packets >= uint64(x.thin)*ring.Stats().Packets })
			}
		}
		stop()
		s := c.States()[0]
		close(hits)
		selected := uint64(0)
		for h := range hits {
			selected += h.Selected
			if h.Record.Interval != x.thin {
				t.Fatalf("the interval is said to be %d", h.Record.Interval)
			}
		}
		captured := s.Packets / uint64(x.thin)
		t.Logf("1 in %d, rate %v: %d captured, %d selected", x.thin, x.rate, captured, selected)
		if c.Counters.Overrun.Load()+c.Counters.Lost.Load() != 0 || s.Packets%uint64(x.thin) != 0 || s.Bytes != 100*s.Packets || c.Thin() != x.thin {
			t.Errorf("1 in %d: %d dropped, %d lost, %+v", x.thin, c.Counters.Overrun.Load(), c.Counters.Lost.Load(), s)
		}
		if !within(captured, sent, capture.Chance(x.thin)) || !within(selected, sent, x.rate) {
			t.Errorf("1 in %d, rate %v: %d packets, want about %d, %d selected, want about %v", x.thin, x.rate, s.Packets, sent, selected, sent*x.rate)
		}
	}
}

// TestWhatIsInTheRingCountsAsBefore when the filter changes.
func TestWhatIsInTheRingCountsAsBefore(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, _ := two(t)
	send := host0.Send("to-router")
	c := capturing(t, router, nil, Capturing{Interfaces: []Interface{{"eth0", WAN}}})
	defer c.Close()
	x := c.taps[0]
	one := udpFrame(1, 2, 100)
	captured, want := uint64(0), uint64(0)
	for _, thin := range []uint32{1, 8, 2, 1, 5} {
		for range 1000 { // in the ring, and not yet read when the next one is set
			send(one)
		}
		now := x.ring.Stats().Packets
		want += (now - captured) * uint64(c.Thin())
		captured = now
		c.setThin(thin)
		for range 1000 {
			send(one)
		}
		now = x.ring.Stats().Packets
		want += (now - captured) * uint64(thin)
		captured = now
		until(t, "the packets", func() bool { c.drain(x); return c.States()[0].Packets >= want })
		if s := c.States()[0]; s.Packets != want || s.Bytes != 100*want || x.in.thin != thin || x.out.thin != thin || c.Thin() != thin {
			t.Fatalf("1 in %d: %+v, want %d packets; 1 in %d counts", thin, s, want, x.in.thin)
		}
	}
}

func TestThinningFollowsTheLoad(t *testing.T) {
	const second = time.Second
	for _, x := range []struct {
		name string
		rate float64
		most uint32
	}{{"a low rate", 1e-6, MaxThin}, {"a rate of 1/100", 0.01, 100}, {"a rate of 1", 1, 1}, {"a rate of 1/3", 1. / 3, 3}} {
		t.Run(x.name, func(t *testing.T) {
			c := capturing(t, nil, nil, Capturing{Rate: x.rate, Auto: true})
			defer c.Close()
			now, spent, dropped := time.Unix(1e9, 0), time.Duration(0), uint64(0)
			step := func(share float64, drops uint64, want uint32) {
				t.Helper()
				now, spent, dropped = now.Add(second), spent+time.Duration(share*float64(second)), dropped+drops
				if c.adapt(now, spent, dropped); c.Thin() != want {
					t.Fatalf("at a share of %v and %d drops: 1 in %d, want 1 in %d", share, drops, c.Thin(), want)
				}
			}
			step(1, 5, 1) // the first time there is nothing to compare with
			step(0.14, 0, 1)
			thin := uint32(1)
			for range 7 {
				thin = min(4*thin, x.most)
				step(0.16, 0, thin)
			}
			if thin != x.most {
				t.Fatalf("1 in %d", thin)
			}
			for thin > 1 {
				for range 9 {
					step(0.024, 0, thin)
				}
				step(0.026, 0, thin) // four times as much would be no more than enough
				for range 9 {
					step(0.024, 0, thin)
				}
				thin = max(thin/4, 1)
				step(0.024, 0, thin)
			}
			for range 20 {
				step(0, 0, 1)
			}
			step(0, 1, min(4, x.most)) // a drop, of a busy system
			for range 9 {
				step(0, 0, min(4, x.most))
			}
			step(0, 1, min(16, x.most))
		})
	}
}

func TestSeeingAPacketDoesNotAllocate(t *testing.T) {
	for _, rate := range []float64{1e-9, 1} {
		s, err := selector.New(rate)
		if err != nil {
			t.Fatal(err)
		}
		hits := make(chan Hit, 1)
		w := NewWatch(context.Background(), Sink{Hits: hits}, 64, evidence.NewDetector(evidence.DetectorOptions{Flows: 64, Limit: 100}))
		v := view{link: 1, thin: 2, draw: same(s)}
		one := udpFrame(0, 2, 60)
		n := uint16(0)
		if got := testing.AllocsPerRun(2000, func() {
			n++
			binary.BigEndian.PutUint16(one[34:], n) // a new flow each
			w.see(&v, one, uint32(len(one)), int64(n), uint32(n%3)<<16|uint32(n%7))
			w.see(&v, one[:n%30], uint32(len(one)), int64(n), 0) // too short
			w.flush(&v)
			select {
			case <-hits:
			default:
			}
		}); got != 0 {
			t.Errorf("%v allocations a packet at a rate of %v", got, rate)
		}
		if packets := w.Counters.Packets.Load(); packets < 4000 || w.Counters.Drops[Unreadable].Load() < 2000 || rate == 1 && w.Counters.Hits.Load() < 2000 {
			t.Errorf("%d packets, %d hits", packets, w.Counters.Hits.Load())
		}
	}
}

// TestAnInterfaceComesBackUnderItsNumber: one that is moved to another namespace
// and back keeps its number, but the kernel has taken the ring off it.
func TestAnInterfaceComesBackUnderItsNumber(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	router, host0, _ := two(t)
	c := capturing(t, router, nil, Capturing{Interfaces: []Interface{{"eth0", WAN}}})
	before := c.taps[0].ring.Index()
	other := netns.New(t)
	router.IP("link set dev eth0 netns " + other.Name)
	other.IP("link set dev eth0 netns " + router.Name)
	router.IP("link set dev eth0 up")
	host0.Ready("to-router")
	running(t, router, c)
	send := host0.Send("to-router")
	until(t, "a packet", func() bool {
		send(udpFrame(1, 2, 60))
		return c.States()[0].Packets > 0
	})
	if after := c.taps[0].in.record.Ingress; after != uint32(before) {
		t.Skipf("its number was %d, and is %d", before, after)
	}
}
