// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// unseal stands in for the cryptography: what is sealed has the bytes in the clear.
func unseal(b []byte) ([]byte, error) {
	if inner, ok := bytes.CutPrefix(b, []byte("OVERFLWS good ")); ok {
		return inner, nil
	}
	return nil, errors.New("no")
}

func sealed(d []byte) []byte { return append([]byte("OVERFLWS good "), d...) }

// TestNothingCrowdsOutSealedTracersOfHomes: whatever floods, those of a network from
// which one of standing came are opened.
func TestNothingCrowdsOutSealedTracersOfHomes(t *testing.T) {
	inTime(t, func(t *testing.T) {
		opened := 0
		b := newBench(t, func(o *Options) {
			o.Rates, o.OpenRates = [3]float64{100, 10, 10}, [2]float64{100, 10}
			o.Unseal = func(b []byte) ([]byte, error) { opened++; return unseal(b) }
		})
		b.age(key(1))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { b.Run(ctx); close(done) }()
		send := func(d []byte, from netip.Addr) {
			b.Offer(d, netip.AddrPortFrom(from, 40000), 1, time.Now())
			synctest.Wait()
		}
		n := uint64(1 << 50)
		fresh := func() []byte { n++; return sealed(datagram(key(1), made(n))) }
		before := len(b.taken)
		send(fresh(), router)
		start := time.Now()
		for i := range uint64(60) {
			for j := range uint64(50) {
				send([]byte("OVERFLWS garbage"), many(i*50+j))
				time.Sleep(1037 * time.Microsecond)
			}
			send(fresh(), router)
		}
		if len(b.taken)-before != 61 {
			t.Errorf("%d of 61 were taken", len(b.taken)-before)
		}
		if most := 61 + 10 + int(time.Since(start).Seconds()*10); opened > most || opened < 70 {
			t.Errorf("%d were opened, want at most %d", opened, most)
		}
		if b.Counters.Results[SealedBudget].Load() == 0 || b.Counters.Results[Unopened].Load() == 0 {
			t.Errorf("%d of no budget, %d unopened", b.Counters.Results[SealedBudget].Load(), b.Counters.Results[Unopened].Load())
		}
		cancel()
		<-done
		if len(b.unsealing.free) != cap(b.unsealing.free) || len(b.free) != cap(b.free) {
			t.Error("buffers were lost")
		}
	})
}

// TestSealedTracersAreRefused of which too many wait, or that are sealed twice or hold
// no tracer; and all, if nobody can open them.
func TestSealedTracersAreRefused(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t)
		if why := b.offer(sealed(datagram(key(1), made(1))), router, 1); why != Sealed {
			t.Errorf("without a key: %s", why)
		}
		if _, err := b.SubmitSealed(sealed(nil), router, time.Now()); err != Sealed {
			t.Errorf("without a key: %v", err)
		}
		b = newBench(t, func(o *Options) { o.Unseal, o.Queue, o.OpenRates = unseal, 16, [2]float64{1000, 100} })
		for i := range uint64(8) {
			b.Offer(sealed(datagram(key(i), made(i))), netip.AddrPortFrom(many(i), 1), 1, time.Now())
		}
		if n := b.Counters.Results[Busy].Load(); n != 7 {
			t.Errorf("%d of 8 found the queue of one full", n)
		}
		b = newBench(t, func(o *Options) { o.Unseal, o.OpenRates = unseal, [2]float64{1000, 100} })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go b.Run(ctx)
		elsewhere := made(2)
		elsewhere.To = netip.MustParseAddr("192.0.2.77")
		twice := sealed(sealed(datagram(key(1), made(1))))
		for why, d := range map[Reason][]byte{Form: twice, NotMine: sealed(datagram(key(1), elsewhere))} {
			b.Offer(d, netip.AddrPortFrom(many(uint64(why)), 1), 1, time.Now())
			synctest.Wait()
			if b.Counters.Results[why].Load() != 1 {
				t.Errorf("%s: %d", why, b.Counters.Results[why].Load())
			}
		}
		one := netip.AddrPortFrom(many(1000), 1)
		for range 20 {
			b.Offer([]byte("OVERFLWS garbage"), one, 1, time.Now())
			synctest.Wait()
		}
		if n := b.Counters.Results[NetworkRate].Load(); n != 12 {
			t.Errorf("%d of 20 were too many of one network", n)
		}
	})
}

// TestAHomeTakesNoMoreThanItsPartOfTheLane: its garbage crowds out nobody else's.
func TestAHomeTakesNoMoreThanItsPartOfTheLane(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) {
			o.Unseal, o.Rates, o.OpenRates = unseal, [3]float64{100, 10, 10}, [2]float64{100, 10}
		})
		b.age(key(1))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go b.Run(ctx)
		send := func(d []byte, from netip.Addr) {
			b.Offer(d, netip.AddrPortFrom(from, 40000), 1, time.Now())
			synctest.Wait()
		}
		n := uint64(1 << 50)
		fresh := func() []byte { n++; return sealed(datagram(key(1), made(n))) }
		send(fresh(), router)
		bad := netip.MustParseAddr("11.9.9.9")
		b.unsealing.note(b.Receiver, &Received{From: bad, Level: Consistent})
		before := len(b.taken)
		for range 40 {
			for range 33 {
				send([]byte("OVERFLWS garbage"), bad)
				time.Sleep(3037 * time.Microsecond)
			}
			send(fresh(), router)
		}
		if len(b.taken)-before != 40 {
			t.Errorf("%d of 40 were taken", len(b.taken)-before)
		}
	})
}
