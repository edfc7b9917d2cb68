// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// sealing is a wire whose datagrams may be sealed.
type sealing struct {
	*wire
	raw [][]byte
	to  []netip.Addr
}

func (s *sealing) Send(to netip.Addr, datagram []byte) error {
	s.raw, s.to = append(s.raw, bytes.Clone(datagram)), append(s.to, to)
	return nil
}

func newSealing(t testing.TB, mode Sealing, given ...SealFor) *sealing {
	s := &sealing{wire: newAnswered(t)}
	s.transport = s
	s.observed = 1 << 40
	s.Seal(mode, given)
	return s
}

var peerAddr = netip.MustParseAddr(web4)

// tell sends a tracer to the peer and returns it as it left; nil if none did.
func (s *sealing) tell() []byte {
	n := len(s.raw)
	s.offer(record("45.83.0.2", web4), 1)
	s.Drain()
	time.Sleep(4 * time.Second)
	for i := n; i < len(s.raw); i++ {
		if s.to[i] == peerAddr {
			return s.raw[i]
		}
	}
	return nil
}

// answer is a receipt of the peer for the last tracer it got, which it opened.
func (s *sealing) answer(t *testing.T, open tracer.Openers, signer ed25519.PrivateKey, tells tracer.SealKey) {
	t.Helper()
	for i := len(s.raw) - 1; i >= 0; i-- {
		if s.to[i] != peerAddr {
			continue
		}
		b := s.raw[i]
		if tracer.IsSealed(b) {
			var err error
			if b, err = open.Open(b); err != nil {
				t.Fatal(err)
			}
		}
		signed, err := tracer.ParseDatagram(b)
		if err != nil {
			t.Fatal(err)
		}
		m, err := signed.Open()
		if err != nil {
			t.Fatal(err)
		}
		r := tracer.Receipt{Verb: tracer.Received, Time: time.Now().UnixMilli(), Nonce: m.Nonce, Sender: signed.Key, To: peerAddr, Seal: tells}
		s.Answer(tracer.AppendReceipt(nil, signer, &r), peerAddr)
		return
	}
	t.Fatal("there is nothing to answer")
}

func opens(open tracer.Openers, b []byte) bool {
	if !tracer.IsSealed(b) {
		return false
	}
	_, err := open.Open(b)
	return err == nil
}

// TestAKeyOfAReceiptIsTrustedOnFirstUse, pinned, and changed by its owner only.
func TestAKeyOfAReceiptIsTrustedOnFirstUse(t *testing.T) {
	inTime(t, func(t *testing.T) {
		s := newSealing(t, SealPrefer)
		first, second, evil := opener(t), opener(t), opener(t)
		attacker := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
		if b := s.tell(); !tracer.IsDatagram(b) {
			t.Fatalf("before anything is known: %q", b)
		}
		s.answer(t, nil, recipient, first.Key())
		if !opens(first, s.tell()) || s.Counters.Sealed != 1 {
			t.Error("not sealed to the first key")
		}
		// A lost receipt changes nothing; one that another key signed does not either.
		if !opens(first, s.tell()) {
			t.Error("a receipt was lost, and the key with it")
		}
		s.answer(t, first, attacker, evil.Key())
		if !opens(first, s.tell()) || s.Counters.Impostors != 1 {
			t.Errorf("another took the place of the recipient: %+v", s.Counters)
		}
		s.answer(t, first, attacker, tracer.SealKey{})
		if !opens(first, s.tell()) || s.Counters.Impostors != 2 {
			t.Errorf("another had tracers sent open: %+v", s.Counters)
		}
		// The recipient rolls its key.
		s.answer(t, first, recipient, second.Key())
		if b := s.tell(); !opens(second, b) || opens(first, b) {
			t.Error("not sealed to the second key")
		}
		// And may want no more of it.
		s.answer(t, second, recipient, tracer.SealKey{})
		if b := s.tell(); !tracer.IsDatagram(b) {
			t.Error("still sealed")
		}
		// Who is not heard of for long is begun anew with.
		s.answer(t, nil, recipient, first.Key())
		time.Sleep(pinned + time.Hour)
		if _, forgotten := s.Pinned(); forgotten != 0 {
			t.Errorf("%d forgotten, though its owner withdrew it", forgotten)
		}
		if b := s.tell(); !tracer.IsDatagram(b) {
			t.Error("a key that nobody confirmed for a month")
		}
		if n, forgotten := s.Pinned(); n != 0 || forgotten != 1 {
			t.Errorf("%d pinned, %d forgotten: it was silent", n, forgotten)
		}
		s.answer(t, nil, attacker, second.Key())
		if !opens(second, s.tell()) {
			t.Error("not sealed to who is there now")
		}
	})
}

// TestConfiguredKeys count more than what anybody tells, the longest prefix first.
func TestConfiguredKeys(t *testing.T) {
	inTime(t, func(t *testing.T) {
		given, told := opener(t), opener(t)
		s := newSealing(t, SealRequire, SealFor{netip.MustParsePrefix("91.200.16.0/24"), given.Key()}, SealFor{netip.MustParsePrefix("91.200.0.0/16"), told.Key()})
		for range 3 {
			if !opens(given, s.tell()) {
				t.Fatal("not sealed to the key that is given")
			}
			s.answer(t, given, recipient, told.Key())
		}
		if s.Counters.Unsealed != 3 { // the other end, of which no key is known
			t.Errorf("%+v", s.Counters)
		}
		for i, to := range s.to {
			if to != peerAddr || !tracer.IsSealed(s.raw[i]) {
				t.Errorf("%s got %.20q", to, s.raw[i])
			}
		}
	})
}

// TestNothingIsSentOpenThatMustBeSealed: who has no key is not told.
func TestNothingIsSentOpenThatMustBeSealed(t *testing.T) {
	inTime(t, func(t *testing.T) {
		s := newSealing(t, SealRequire)
		for range 5 {
			if b := s.tell(); b != nil {
				t.Errorf("sent: %q", b)
			}
		}
		if len(s.raw) != 0 || s.Counters.Unsealed != 10 || s.Waiting() != 0 {
			t.Errorf("%d sent, %+v", len(s.raw), s.Counters)
		}
	})
}

// TestATracerThatIsTooLargeToBeSealed is not sent open either.
func TestATracerThatIsTooLargeToBeSealed(t *testing.T) {
	inTime(t, func(t *testing.T) {
		key := opener(t)
		s := newSealing(t, SealPrefer, SealFor{netip.MustParsePrefix("0.0.0.0/0"), key.Key()})
		about := &About{Contact: tracer.Contact{Identity: string(bytes.Repeat([]byte("x"), 800))}}
		if err := s.Offer(record("45.83.0.2", web4), about, MaxRate, 1); err != nil {
			t.Fatal(err)
		}
		s.Drain()
		if len(s.raw) != 0 || s.Counters.Unsealed != 2 || s.Waiting() != 0 {
			t.Errorf("%d sent, %+v", len(s.raw), s.Counters)
		}
	})
}

// TestPinsOutliveTheProgram: what is known is known after it, as well as to whom it is.
func TestPinsOutliveTheProgram(t *testing.T) {
	inTime(t, func(t *testing.T) {
		s := newSealing(t, SealPrefer)
		key, evil := opener(t), opener(t)
		if pins, changed := s.Pins(); len(pins) != 0 || changed {
			t.Errorf("%v, %v", pins, changed)
		}
		s.tell()
		s.answer(t, nil, recipient, key.Key())
		pins, changed := s.Pins()
		if len(pins) != 1 || !changed || pins[0].Addr != peerAddr || pins[0].Seal != key.Key() || pins[0].Signer != tracer.PublicKey(recipient.Public().(ed25519.PublicKey)) {
			t.Fatalf("%+v, %v", pins, changed)
		}
		s.tell()
		s.answer(t, key, recipient, key.Key())
		if _, changed := s.Pins(); changed {
			t.Error("the same once more is no change")
		}
		again := newSealing(t, SealPrefer)
		again.Pin(pins)
		if !opens(key, again.tell()) {
			t.Error("sent open after the program was started again")
		}
		again.answer(t, key, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)), evil.Key())
		if !opens(key, again.tell()) || again.Counters.Impostors != 1 {
			t.Error("another took the place of the recipient after the program was started again")
		}
		// A key that is confirmed each day is as good after a month.
		for range 40 {
			time.Sleep(25 * time.Hour)
			again.tell()
			again.answer(t, key, recipient, key.Key())
			if pins, changed := again.Pins(); !changed || pins[0].Age > time.Minute {
				t.Fatalf("a day later: %+v, %v", pins, changed)
			}
		}
		for i := range 3 * maxPins {
			again.seals.receipt(netip.AddrFrom4([4]byte{11, 0, 0, byte(i)}), &tracer.Receipt{Seal: tracer.SealKey{1}}, time.Since(again.start)+time.Duration(i))
		}
		if pins, changed := again.Pins(); len(pins) != maxPins || !changed || pins[0].Addr != netip.AddrFrom4([4]byte{11, 0, 0, 3*maxPins - 1}) {
			t.Errorf("%d pins, %v", len(pins), changed)
		}
	})
}

// TestManyWithoutAKeyTakeNobodysPlace: what was told holds.
func TestManyWithoutAKeyTakeNobodysPlace(t *testing.T) {
	s := newSeals(SealPrefer, nil)
	s.receipt(peerAddr, &tracer.Receipt{Seal: tracer.SealKey{1}}, 1)
	for i := range 3 * maxPeers {
		s.receipt(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), &tracer.Receipt{}, 2)
	}
	if !s.has(peerAddr, 3) {
		t.Error("the key was forgotten")
	}
}

// TestADocumentAndAReceipt: what a document told, only who sends the same key may take
// over; and it is asked for again when it is old or no good.
func TestADocumentAndAReceipt(t *testing.T) {
	s := newSeals(SealPrefer, nil)
	first, second, stranger := tracer.SealKey{1}, tracer.SealKey{2}, tracer.PublicKey{9}
	if !s.receipt(peerAddr, &tracer.Receipt{Key: stranger}, 1) || !s.asks(peerAddr, 2) {
		t.Error("who has no key is asked for one")
	}
	s.document(peerAddr, first, 3)
	if s.receipt(peerAddr, &tracer.Receipt{Key: stranger, Seal: second}, 4) || s.receipt(peerAddr, &tracer.Receipt{Key: stranger}, 4) || s.key(peerAddr, 5) != first {
		t.Error("a stranger changed the key of a document")
	}
	if s.asks(peerAddr, 6) || !s.asks(peerAddr, 4+confirmed) {
		t.Error("a document is to be asked for once a day")
	}
	s.document(peerAddr, second, 5+confirmed)
	if s.key(peerAddr, 6+confirmed) != second {
		t.Error("another key in the document")
	}
	if !s.receipt(peerAddr, &tracer.Receipt{Key: tracer.PublicKey{7}, Seal: second}, 7+confirmed) {
		t.Error("a receipt with the same key")
	}
	s.document(peerAddr, first, 8+confirmed)
	if s.doubt(peerAddr); s.key(peerAddr, 9+confirmed) != second {
		t.Error("what a receipt told was changed by a document, or doubt")
	}
	other := netip.MustParseAddr("45.83.0.9")
	s.document(other, first, 1)
	if s.doubt(other); s.has(other, 2) || !s.asks(other, 2) {
		t.Error("a key that is no good was kept")
	}
}

// TestWhatWaitsForAKeyThatIsWithdrawn does not wait for ever.
func TestWhatWaitsForAKeyThatIsWithdrawn(t *testing.T) {
	inTime(t, func(t *testing.T) {
		key := opener(t)
		s := newSealing(t, SealRequire)
		s.Pin([]Pin{{Addr: peerAddr, Seal: key.Key(), Signer: tracer.PublicKey(recipient.Public().(ed25519.PublicKey))}})
		s.tell()
		for range 2 {
			s.offer(record("45.83.0.2", web4), 1)
		}
		s.Drain()
		s.offer(record("45.83.0.2", web4), 1)
		if s.Waiting() != 1 {
			t.Fatalf("%d wait", s.Waiting())
		}
		s.answer(t, key, recipient, tracer.SealKey{})
		time.Sleep(11 * time.Second)
		n := s.Counters.Unsealed
		if s.Drain(); s.Waiting() != 0 || s.Counters.Unsealed != n+1 {
			t.Errorf("%d wait, %d unsealed", s.Waiting(), s.Counters.Unsealed-n)
		}
	})
}

// TestPeersAreBounded: a million addresses that answer take no more memory.
func TestPeersAreBounded(t *testing.T) {
	s := newSeals(SealPrefer, nil)
	for i := range 20 * maxPeers {
		a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		s.receipt(a, &tracer.Receipt{Seal: tracer.SealKey{1}}, time.Duration(i))
	}
	if s.table.Len() != maxPeers || len(s.peers) != maxPeers {
		t.Errorf("%d", s.table.Len())
	}
	if s.forgotten != 19*maxPeers {
		t.Errorf("%d were forgotten", s.forgotten)
	}
	last := 20*maxPeers - 1
	if s.key(netip.AddrFrom4([4]byte{11, byte(last >> 16), byte(last >> 8), byte(last)}), time.Duration(last)) == (tracer.SealKey{}) {
		t.Error("the last one was forgotten")
	}
}
