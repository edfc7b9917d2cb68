// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"net/netip"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

func TestReceipts(t *testing.T) {
	other := netip.MustParseAddr("203.0.113.6")
	third := netip.MustParseAddr("203.0.113.7")
	a, err := newAnswerer(t.TempDir(), []netip.Prefix{netip.PrefixFrom(other, 32)}, []netip.Prefix{netip.PrefixFrom(third, 32)}, func() tracer.SealKey { return tracer.SealKey{5} })
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	x := received(t, signed(1, nil), 3, receiver.NewKey, now)
	if a.receipt(x, now) != nil {
		t.Error("one that came by HTTP was answered")
	}
	x.Port = 40000
	stale := *x
	if stale.Stale = true; a.receipt(&stale, now) != nil {
		t.Error("a stale one was answered")
	}
	b := a.receipt(x, now)
	r, err := tracer.ParseReceipt(b)
	if err != nil || !r.Valid() || r.Verb != tracer.Received || r.Nonce != x.Nonce || r.Sender != x.Signed.Key || r.To != us || len(b) > len(x.Signed.AppendDatagram(nil)) {
		t.Errorf("%v: %+v", err, r)
	}
	to := received(t, signed(1, func(m *tracer.Tracer) { m.To = other; m.Flow.Dst[3] = 6 }), 3, receiver.NewKey, now)
	to.Port = 40000
	if r, err := tracer.ParseReceipt(a.receipt(to, now)); err != nil || r.Verb != tracer.Stop || !r.Valid() {
		t.Errorf("stop: %v: %+v", err, r)
	}
	to = received(t, signed(1, func(m *tracer.Tracer) { m.To = third; m.Flow.Dst[3] = 7 }), 3, receiver.NewKey, now)
	to.Port = 40000
	if r, err := tracer.ParseReceipt(a.receipt(to, now)); err != nil || r.Verb != tracer.More || !r.Valid() || r.Seal != (tracer.SealKey{5}) {
		t.Errorf("more: %v: %+v", err, r)
	}
	// In another's name: at most so many a second to a network, and to all.
	sent := 0
	for i := range 1000 {
		x.From = netip.AddrFrom4([4]byte{11, 0, 0, byte(i)})
		if a.receipt(x, now) != nil {
			sent++
		}
	}
	if sent != answersEach || a.held.Load() != 1000-answersEach {
		t.Errorf("%d to one network, %d held back", sent, a.held.Load())
	}
	for i := range 10_000 {
		x.From = netip.AddrFrom4([4]byte{12, byte(i >> 8), byte(i), 1})
		if a.receipt(x, now) != nil {
			sent++
		}
	}
	if sent != answersAll-3 {
		t.Errorf("%d in all", sent)
	}
}
