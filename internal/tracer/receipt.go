// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"net/netip"
)

// A Verb is what a receipt says.
type Verb uint8

const (
	// Received: the tracer arrived.
	Received Verb = 1
	// Stop: send no more to this address, for a day.
	Stop Verb = 2
	// More: select the packets to this address more often, for minutes.
	More Verb = 3
)

// A Receipt is a recipient's answer to a tracer in datagram form, to where it came
// from. Its form, of ReceiptSize bytes, or of ReceiptSealSize with the last member,
// is smaller than any tracer:
//
//	  0  magic "OVERFLWR"
//	  8  Ed25519 public key of the recipient, 32 bytes
//	 40  Ed25519 signature of what follows behind the label, 64 bytes
//	104  verb, 1 byte
//	105  when it was made, ms since the Unix epoch, 8 bytes, big-endian
//	113  nonce of the tracer, 8 bytes
//	121  public key of the tracer's sender, 32 bytes
//	153  "to" of the tracer, 16 bytes, an IPv4 address as ::ffff:a.b.c.d
//	169  X25519 public key to which tracers may be sealed, 32 bytes, if there is one
//
// The label "overflowd receipt 1\n" before the signed bytes keeps the signature
// from being one of anything else.
type Receipt struct {
	Key       PublicKey
	Signature [ed25519.SignatureSize]byte
	Verb      Verb
	Time      int64
	Nonce     [8]byte
	Sender    PublicKey
	To        netip.Addr
	Seal      SealKey // zero: none
}

// Sizes of a receipt, in bytes.
const (
	ReceiptSize     = 169
	ReceiptSealSize = ReceiptSize + 32
)

const (
	receiptMagic = "OVERFLWR"
	receiptLabel = "overflowd receipt 1\n"
	receiptBody  = headerLen // where the signed bytes begin
)

// ErrReceipt: not a receipt.
var ErrReceipt = errors.New("not a receipt")

// AppendReceipt signs a receipt and appends it. Key and Signature of r are not
// looked at.
func AppendReceipt(dst []byte, key ed25519.PrivateKey, r *Receipt) []byte {
	body := r.body()
	dst = append(dst, receiptMagic...)
	dst = append(dst, key.Public().(ed25519.PublicKey)...)
	dst = append(dst, ed25519.Sign(key, body)...)
	return append(dst, body[len(receiptLabel):]...)
}

// body returns what is signed.
func (r *Receipt) body() []byte {
	b := append(make([]byte, 0, len(receiptLabel)+ReceiptSealSize-receiptBody), receiptLabel...)
	b = append(b, byte(r.Verb))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time))
	b = append(b, r.Nonce[:]...)
	b = append(b, r.Sender[:]...)
	to := r.To.As16()
	b = append(b, to[:]...)
	if r.Seal != (SealKey{}) {
		b = append(b, r.Seal[:]...)
	}
	return b
}

// ParseReceipt takes a receipt apart. It does not verify.
func ParseReceipt(b []byte) (r Receipt, err error) {
	if len(b) != ReceiptSize && len(b) != ReceiptSealSize || string(b[:len(receiptMagic)]) != receiptMagic {
		return r, ErrReceipt
	}
	r.Key, r.Signature = PublicKey(b[8:40]), [64]byte(b[40:104])
	b = b[receiptBody:]
	r.Verb, r.Time, r.Nonce, r.Sender = Verb(b[0]), int64(binary.BigEndian.Uint64(b[1:])), [8]byte(b[9:17]), PublicKey(b[17:49])
	r.To = netip.AddrFrom16([16]byte(b[49:])).Unmap()
	if b = b[65:]; len(b) > 0 {
		r.Seal = SealKey(b)
	}
	if r.Verb < Received || r.Verb > More || len(b) > 0 && r.Seal == (SealKey{}) {
		return r, ErrReceipt
	}
	return r, nil
}

// Valid tells whether the signature is by Key, and Key is no weak key.
func (r *Receipt) Valid() bool { return verify(r.Key, r.body(), &r.Signature) }
