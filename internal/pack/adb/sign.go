// SPDX-License-Identifier: BSD-3-Clause

package adb

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// A signature is a block behind the first one. Its payload, and what is signed:
//
//	payload  version (1 byte, 0), hash (1 byte, 4 for SHA-512), key (16 bytes), ECDSA signature
//	signed   schema (4 bytes), the payload without the signature, SHA-512 of the first block's payload
//
// The key is named by the SHA-512 of its point, not compressed.
const (
	blockSignature = 1
	hashSHA512     = 4
	keyNameSize    = 16
)

// ParseKey reads a private key of an elliptic curve, as openssl ecparam -genkey
// writes it.
func ParseKey(file []byte) (*ecdsa.PrivateKey, error) {
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if key, ok := key.(*ecdsa.PrivateKey); ok {
				return key, nil
			}
		}
	}
	return nil, errors.New("no PEM file of a private key of an elliptic curve")
}

// Sign puts a signature behind the first block. The same key makes the same of the
// same (RFC 6979).
func (f *File) Sign(key *ecdsa.PrivateKey) error {
	payload, digest, err := f.toSign(&key.PublicKey)
	if err != nil {
		return err
	}
	signature, err := key.Sign(nil, digest, crypto.SHA512)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	rest := f.b[f.first:]
	f.b = f.b[:f.first:f.first]
	f.block(blockSignature, payload, signature)
	f.b = append(f.b, rest...)
	return nil
}

// toSign returns the payload without the signature, and the digest that is signed.
func (f *File) toSign(key *ecdsa.PublicKey) (payload, digest []byte, err error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, nil, fmt.Errorf("the public key: %w", err)
	}
	name := sha512.Sum512(point)
	payload = append([]byte{0, hashSHA512}, name[:keyNameSize]...)
	content := sha512.Sum512(f.payload)
	h := sha512.New()
	h.Write(f.b[4:8])
	h.Write(payload)
	h.Write(content[:])
	return payload, h.Sum(nil), nil
}
