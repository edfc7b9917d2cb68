// SPDX-License-Identifier: BSD-3-Clause

// Package usign signs as OpenWrt's usign does, for opkg: Ed25519 in the files of
// OpenBSD's signify. A file is a line of comment and a line of base64:
//
//	private key  "Ed", "BK", rounds (4 bytes, 0), salt (16), checksum (8), fingerprint (8), seed (32), public key (32)
//	public key   "Ed", fingerprint (8), public key (32)
//	signature    "Ed", fingerprint (8), signature (64)
package usign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
)

// Key is a private key.
type Key struct {
	fingerprint []byte
	private     ed25519.PrivateKey
}

// Where the parts of a private key begin.
const (
	atRounds      = 4
	atChecksum    = 24
	atFingerprint = 32
	atSeed        = 40
	keySize       = 104
)

var errKey = errors.New("no private key of usign without a passphrase")

// ParseKey reads the file that usign -G -s writes.
func ParseKey(file []byte) (*Key, error) {
	_, line, found := bytes.Cut(file, []byte("\n"))
	b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line)))
	if !found || err != nil || len(b) != keySize || string(b[:2]) != "Ed" || !bytes.Equal(b[atRounds:atRounds+4], make([]byte, 4)) {
		return nil, errKey
	}
	sum := sha512.Sum512(b[atSeed:])
	private := ed25519.NewKeyFromSeed(b[atSeed : atSeed+ed25519.SeedSize])
	if !bytes.Equal(sum[:8], b[atChecksum:atFingerprint]) || !bytes.Equal(private, b[atSeed:]) {
		return nil, fmt.Errorf("%w: it is damaged", errKey)
	}
	return &Key{fingerprint: b[atFingerprint:atSeed], private: private}, nil
}

// Fingerprint returns the name of the public key under /etc/opkg/keys.
func (k *Key) Fingerprint() string { return fmt.Sprintf("%x", k.fingerprint) }

// Public returns the file of the public key.
func (k *Key) Public() []byte {
	return k.file("public key", k.private.Public().(ed25519.PublicKey))
}

// Sign returns the file of a signature.
func (k *Key) Sign(message []byte) []byte {
	return k.file("signed by key", ed25519.Sign(k.private, message))
}

func (k *Key) file(comment string, b []byte) []byte {
	b = append(append([]byte("Ed"), k.fingerprint...), b...)
	return fmt.Appendf(nil, "untrusted comment: %s %s\n%s\n", comment, k.Fingerprint(), base64.StdEncoding.EncodeToString(b))
}
