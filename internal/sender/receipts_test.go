// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

var recipient = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// receipt is one for the n-th tracer that a wire has sent.
func (w *wire) receipt(n int, verb tracer.Verb, change func(*tracer.Receipt)) []byte {
	r := tracer.Receipt{Verb: verb, Time: time.Now().UnixMilli(), Nonce: w.sent[n].m.Nonce, Sender: tracer.PublicKey(w.key.Public().(ed25519.PublicKey)), To: w.sent[n].to}
	if change != nil {
		change(&r)
	}
	return tracer.AppendReceipt(nil, recipient, &r)
}

// newAnswered is a wire that takes receipts.
func newAnswered(t testing.TB, private ...netip.Prefix) *wire {
	w := newWire(t, MaxRate, private...)
	w.TakeReceipts()
	return w
}

// TestWhoAsksUsToStopIsLeftAlone for a day; nobody else can ask for him.
func TestWhoAsksUsToStopIsLeftAlone(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newAnswered(t)
		w.observed = 1 << 40
		tell := func() int {
			before := len(w.sent)
			w.offer(record("91.200.16.2", "45.83.0.2"), 1)
			w.Drain()
			time.Sleep(4 * time.Second)
			return len(w.sent) - before
		}
		if tell() != 2 {
			t.Fatalf("%d sent", len(w.sent))
		}
		victim := w.sent[0].to
		stranger := netip.MustParseAddr("11.0.0.1")
		flipped := w.receipt(0, tracer.Stop, nil)
		flipped[60] ^= 1
		for name, x := range map[string]struct {
			b    []byte
			from netip.Addr
		}{
			"from elsewhere":             {w.receipt(0, tracer.Stop, nil), stranger},
			"from elsewhere, as it says": {w.receipt(0, tracer.Stop, func(r *tracer.Receipt) { r.To = stranger }), stranger},
			"for another":                {w.receipt(0, tracer.Stop, func(r *tracer.Receipt) { r.To = w.sent[1].to }), victim},
			"of a nonce that is guessed": {w.receipt(0, tracer.Stop, func(r *tracer.Receipt) { r.Nonce[0]++ }), victim},
			"of another sender's tracer": {w.receipt(0, tracer.Stop, func(r *tracer.Receipt) { r.Sender[0]++ }), victim},
			"not signed":                 {flipped, victim},
			"noise":                      {make([]byte, tracer.ReceiptSize), victim},
		} {
			w.Answer(x.b, x.from)
			if w.Counters.Receipts != 0 || len(w.receipts.stops) != 0 {
				t.Fatalf("%s: it was taken", name)
			}
		}
		w.Answer(w.receipt(1, tracer.Received, nil), w.sent[1].to)
		if w.Counters.Receipts != 1 || len(w.receipts.stops) != 0 {
			t.Errorf("received: %d receipts, %d stops", w.Counters.Receipts, len(w.receipts.stops))
		}
		w.Answer(w.receipt(0, tracer.Stop, nil), victim)
		w.Answer(w.receipt(0, tracer.Stop, nil), victim) // once only
		if w.Counters.Receipts != 2 {
			t.Errorf("%d receipts", w.Counters.Receipts)
		}
		if n := tell(); n != 1 || w.sent[len(w.sent)-1].to == victim || w.Counters.Stopped != 1 {
			t.Errorf("%d sent after it, the last to %s; %d left alone", n, w.sent[len(w.sent)-1].to, w.Counters.Stopped)
		}
		time.Sleep(stopped - 10*time.Second)
		if n := tell(); n != 1 {
			t.Errorf("%d sent at the end of the day", n)
		}
		time.Sleep(10 * time.Second)
		if n := tell(); n != 2 {
			t.Errorf("%d sent a day later", n)
		}
		if len(w.receipts.stops) != 0 {
			t.Errorf("%d are remembered that asked a day ago", len(w.receipts.stops))
		}
	})
}

// TestWhatWaitsForSomebodyGoesWhenHeAsksToStop.
func TestWhatWaitsForSomebodyGoesWhenHeAsksToStop(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newAnswered(t)
		w.observed = 1 << 40
		for range 3 {
			w.offer(record("91.200.16.2", "45.83.0.2"), 1)
			w.Drain()
		}
		if w.Waiting() != 2 {
			t.Fatalf("%d wait", w.Waiting())
		}
		w.Answer(w.receipt(0, tracer.Stop, nil), w.sent[0].to)
		if w.Waiting() != 1 || w.pending.notices[0].to == w.sent[0].to {
			t.Errorf("%d wait", w.Waiting())
		}
	})
}

// TestWhoAsksForMoreIsWanting for some minutes; of very many, those who asked first.
func TestWhoAsksForMoreIsWanting(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newAnswered(t)
		w.observed = 1 << 40
		if all, changed := w.Wanting(); len(all) != 0 || changed {
			t.Errorf("%v, %v", all, changed)
		}
		for i := range 2 * maxWanting {
			n := len(w.sent)
			w.offer(record("91.200.16.2", netip.AddrFrom4([4]byte{45, 83, byte(i), 2}).String()), 1)
			w.Drain()
			for ; n < len(w.sent); n++ {
				if w.sent[n].to.As4()[0] == 45 {
					w.Answer(w.receipt(n, tracer.More, nil), w.sent[n].to)
				}
			}
			time.Sleep(time.Second)
		}
		all, changed := w.Wanting()
		if len(all) != maxWanting || !changed || !slices.Contains(all, netip.MustParseAddr("45.83.0.2")) || slices.Contains(all, netip.MustParseAddr("45.83.31.2")) {
			t.Errorf("%v, %v", all, changed)
		}
		if _, changed := w.Wanting(); changed {
			t.Error("it changed though nothing did")
		}
		time.Sleep(wanting)
		if all, changed := w.Wanting(); len(all) != 0 || !changed {
			t.Errorf("after minutes: %v, %v", all, changed)
		}
	})
}

func TestALateReceiptIsNone(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newAnswered(t)
		w.observed = 1 << 40
		w.offer(record("91.200.16.2", "45.83.0.2"), 1)
		w.Drain()
		time.Sleep(answered + time.Second)
		if w.Answer(w.receipt(0, tracer.Stop, nil), w.sent[0].to); w.Counters.Receipts != 0 {
			t.Error("it was taken")
		}
	})
}

// TestReceiptsAreBounded: what is remembered, and the signatures.
func TestReceiptsAreBounded(t *testing.T) {
	r := newReceipts()
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{45, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 3 * maxAsked {
		r.sent([8]byte{byte(i >> 8), byte(i), 1}, tracer.PublicKey{}, addr(i), time.Duration(i))
	}
	if len(r.asked) != maxAsked {
		t.Errorf("%d tracers are remembered", len(r.asked))
	}
	for i := range 3 * maxStopped {
		r.stop(addr(i), time.Duration(i))
	}
	if len(r.stops) != maxStopped || r.wants(addr(3*maxStopped-1), 0) || !r.wants(addr(0), 0) {
		t.Errorf("%d stopped", len(r.stops))
	}
	verified := 0
	for i := 2 * maxAsked; i < 3*maxAsked; i++ {
		x := tracer.Receipt{Verb: tracer.Received, Nonce: [8]byte{byte(i >> 8), byte(i), 1}, To: addr(i)}
		if _, ok := r.take(tracer.AppendReceipt(nil, recipient, &x), addr(i), 1000); ok {
			verified++
		}
	}
	if verified != receiptRate.burst {
		t.Errorf("%d were verified at once", verified)
	}
}
