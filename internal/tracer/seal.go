// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package tracer

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// The sealed form (SPEC.md, section 7) is HPKE in base mode (RFC 9180) with
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305.
const sealLabel = "overflowd sealed 1"

// ErrSealed: no key opens it, or it was changed on its way.
var ErrSealed = errors.New("sealed for another key, or damaged")

// Seal appends the sealed form of a tracer in datagram form: SealOverhead bytes more. It
// returns ErrTooLarge if that is more than there may be, and an error if no secret can be
// agreed on with the key, as with one of small order.
func Seal(dst []byte, to SealKey, datagram []byte) ([]byte, error) {
	if len(datagram)+SealOverhead > MaxDatagram {
		return nil, ErrTooLarge
	}
	public, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(to[:])
	if err != nil {
		return nil, err
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealLabel), datagram)
	if err != nil {
		return nil, err
	}
	return append(append(dst, sealedMagic...), sealed...), nil
}

// Openers are the secret keys of a recipient, the one that senders are told first.
type Openers []*ecdh.PrivateKey

// Open returns the tracer in datagram form: ErrSealed, or ErrTooLarge or ErrForm if that
// cannot be the sealed form. It costs a key exchange, some 50 to 100 microseconds on
// a server, for each key that is tried.
func (o Openers) Open(sealed []byte) ([]byte, error) {
	if len(sealed) > MaxDatagram {
		return nil, ErrTooLarge
	}
	if !IsSealed(sealed) || len(sealed) < SealOverhead+headerLen+2 {
		return nil, ErrForm
	}
	for _, key := range o {
		private, err := hpke.NewDHKEMPrivateKey(key)
		if err != nil {
			return nil, err
		}
		if b, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealLabel), sealed[len(sealedMagic):]); err == nil {
			return b, nil
		}
	}
	return nil, ErrSealed
}

// Key returns the public key that senders are told. There must be one.
func (o Openers) Key() SealKey { return SealKey(o[0].PublicKey().Bytes()) }

// Marshal returns them as PEM blocks of PKCS #8 (RFC 8410), which openssl reads.
func (o Openers) Marshal() ([]byte, error) {
	var b bytes.Buffer
	for _, key := range o {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return b.Bytes(), nil
}

// ParseOpeners reads what Marshal, or openssl genpkey -algorithm x25519, wrote.
func ParseOpeners(text []byte) (o Openers, err error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		x, ok := key.(*ecdh.PrivateKey)
		if !ok || x.Curve() != ecdh.X25519() {
			return nil, fmt.Errorf("a %T is no key of X25519", key)
		}
		o = append(o, x)
	}
	if len(o) == 0 || len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("not PEM of secret keys")
	}
	return o, nil
}

// ReadDocument returns the key that the document of a recipient names (SPEC.md, section
// 8), zero if it names none, and an error if it is no such document.
func ReadDocument(text []byte) (key SealKey, err error) {
	d, err := parseObject(text)
	if err != nil {
		return key, err
	}
	if version := d.member("overflowd"); version == nil {
		return key, errDocument
	} else if n, ok := version.uint(32); !ok || n != 1 {
		return key, errDocument
	}
	if d.member("seal") == nil {
		return key, nil
	}
	word, _ := d.text("seal")
	if key, err = ParseSealKey(word); err == nil && key == (SealKey{}) {
		err = errDocument // which must not read as if there were none
	}
	return key, err
}

var errDocument = errors.New("not the document of a recipient")
