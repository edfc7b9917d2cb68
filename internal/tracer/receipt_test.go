// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"testing"
)

func testReceipt(to string) Receipt {
	return Receipt{Verb: Stop, Time: 1_790_000_000_123, Nonce: [8]byte{1, 2, 3}, Sender: PublicKey{9}, To: netip.MustParseAddr(to)}
}

func TestAReceiptIsReadAsItWasWritten(t *testing.T) {
	for to, size := range map[string]int{"203.0.113.5": ReceiptSize, "2001:db8::1": ReceiptSealSize} {
		want := testReceipt(to)
		if size == ReceiptSealSize {
			want.Seal = SealKey{4, 5}
		}
		b := AppendReceipt(nil, testKey(3), &want)
		if len(b) != size {
			t.Fatalf("%d bytes", len(b))
		}
		got, err := ParseReceipt(b)
		if err != nil || !got.Valid() || got.Key != PublicKey(testKey(3).Public().(ed25519.PublicKey)) {
			t.Fatalf("%v %+v", err, got)
		}
		got.Key, got.Signature = want.Key, want.Signature
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if r, err := ParseReceipt(bad); err == nil && r.Valid() {
				t.Errorf("byte %d changed: valid", i)
			}
		}
	}
	for _, b := range [][]byte{nil, make([]byte, ReceiptSize), []byte(receiptMagic)} {
		if _, err := ParseReceipt(b); err == nil {
			t.Errorf("%d bytes: taken", len(b))
		}
	}
}

// TestAReceiptIsLessThanAnyTracer, so that asking for receipts amplifies nothing.
func TestAReceiptIsLessThanAnyTracer(t *testing.T) {
	least := Tracer{To: netip.MustParseAddr("1.1.1.1")}
	least.Flow = testTracer("1.1.1.1", "1.1.1.2").Flow
	least.Flow.Known = 0
	s := Sign(testKey(1), least.AppendMessage(nil))
	if n := len(s.AppendDatagram(nil)); n < ReceiptSealSize {
		t.Errorf("a tracer has %d bytes, a receipt %d", n, ReceiptSealSize)
	}
}

func FuzzReceipt(f *testing.F) {
	n := 0
	for _, to := range []string{"203.0.113.5", "2001:db8::1"} {
		r := testReceipt(to)
		f.Add(AppendReceipt(nil, testKey(3), &r))
		r.Seal = SealKey{4, 5}
		f.Add(AppendReceipt(nil, testKey(3), &r))
		n++
	}
	if n != 2 {
		f.Fatal("no corpus")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		again := append(append(append([]byte(receiptMagic), r.Key[:]...), r.Signature[:]...), r.body()[len(receiptLabel):]...)
		if x, err := ParseReceipt(again); err != nil || x != r {
			t.Errorf("%v: %+v, %+v", err, x, r)
		}
		r.Valid()
	})
}
