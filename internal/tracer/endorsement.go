// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"crypto/ed25519"
	"encoding/binary"
)

// PublicKey is an Ed25519 public key (RFC 8032, section 5.1.5).
type PublicKey [ed25519.PublicKeySize]byte

// Endorsement is the word of an old key for its successor: tracers signed by
// New come from whoever held Old. It is a fixed 64-byte signature over
//
//	"overflowd endorsement 1\n" || Old (32) || New (32) || Since (8, big-endian)
//
// The label keeps it from ever being taken for the signature of a tracer,
// whose message starts with "{".
type Endorsement struct {
	Old, New  PublicKey
	Since     int64 // seconds since the Unix epoch
	Signature [ed25519.SignatureSize]byte
}

const endorsementLabel = "overflowd endorsement 1\n"

// Endorse lets old endorse next as its successor since the Unix time given.
func Endorse(old ed25519.PrivateKey, next PublicKey, since int64) Endorsement {
	e := Endorsement{Old: PublicKey(old.Public().(ed25519.PublicKey)), New: next, Since: since}
	e.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(old, e.signed()))
	return e
}

// Valid tells whether the signature is by Old, and Old is no weak key.
func (e *Endorsement) Valid() bool {
	return verify(e.Old, e.signed(), &e.Signature)
}

func (e *Endorsement) signed() []byte {
	b := append(make([]byte, 0, 96), endorsementLabel...)
	b = append(b, e.Old[:]...)
	b = append(b, e.New[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(e.Since))
}
