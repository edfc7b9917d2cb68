// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Limits of the forms, in bytes (SPEC.md, section 5).
const (
	// MaxDatagram keeps a tracer within one IPv6 packet of the smallest MTU:
	// 1,280 less 40 for IPv6 and 8 for UDP.
	MaxDatagram = 1232
	// MaxMessage of a datagram.
	MaxMessage = MaxDatagram - headerLen
	// MaxLine of the line form, without its newline.
	MaxLine = 16384
	// maxLineMessage of the line form: more than a datagram takes, as the
	// original's tracers had no limit.
	maxLineMessage = 4096
)

const (
	magic     = "OVERFLW1"
	headerLen = len(magic) + ed25519.PublicKeySize + ed25519.SignatureSize
)

// What is wrong with a tracer. ParseLine wraps ErrForm with the details.
var (
	ErrForm      = errors.New("not a tracer")
	ErrTooLarge  = errors.New("larger than a tracer may be")
	ErrSignature = errors.New("the signature does not fit the key and the message")
	ErrOutside   = errors.New("the members outside the signature differ from those inside")
)

// Signed is a message with its signature. Message is borrowed from whoever made
// the Signed.
type Signed struct {
	Key       PublicKey
	Signature [ed25519.SignatureSize]byte
	Message   []byte
}

// Sign signs a message, which the Signed borrows.
func Sign(key ed25519.PrivateKey, message []byte) Signed {
	return Signed{
		Key:       PublicKey(key.Public().(ed25519.PublicKey)),
		Signature: [ed25519.SignatureSize]byte(ed25519.Sign(key, message)),
		Message:   message,
	}
}

// Verify returns ErrSignature unless the signature is by Key and Key is no weak
// key.
func (s *Signed) Verify() error {
	if !verify(s.Key, s.Message, &s.Signature) {
		return ErrSignature
	}
	return nil
}

// AppendDatagram appends the datagram form.
func (s *Signed) AppendDatagram(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, s.Key[:]...)
	dst = append(dst, s.Signature[:]...)
	return append(dst, s.Message...)
}

// AppendLine appends the line form, without a newline. The message must be a
// JSON object, as every message of AppendMessage and every one that opened is.
func (s *Signed) AppendLine(dst []byte) []byte {
	const space = " \t\r\n"
	body := bytes.TrimSuffix(bytes.TrimRight(s.Message, space), []byte("}"))
	for _, c := range body {
		if c == '\n' || c == '\r' { // white space of a stranger: never within a string
			c = ' '
		}
		dst = append(dst, c)
	}
	if !bytes.HasSuffix(bytes.TrimRight(body, space), []byte("{")) {
		dst = append(dst, ',')
	}
	dst = append(dst, `"signature":{"key":"`...)
	dst = hex.AppendEncode(dst, s.Key[:])
	dst = append(dst, `","signature":"`...)
	both := make([]byte, 0, ed25519.SignatureSize+len(s.Message))
	both = append(append(both, s.Signature[:]...), s.Message...)
	dst = base64.StdEncoding.AppendEncode(dst, both)
	return append(dst, `"}}`...)
}

// ParseDatagram takes the datagram form apart. It does not verify. The message
// is borrowed from b.
func ParseDatagram(b []byte) (Signed, error) {
	if len(b) > MaxDatagram {
		return Signed{}, ErrTooLarge
	}
	if len(b) < headerLen+2 || string(b[:len(magic)]) != magic {
		return Signed{}, ErrForm
	}
	b = b[len(magic):]
	return Signed{Key: PublicKey(b[:32]), Signature: [64]byte(b[32:96]), Message: b[96:]}, nil
}

// IsDatagram tells whether b begins like the datagram form.
func IsDatagram(b []byte) bool { return bytes.HasPrefix(b, []byte(magic)) }

const sealedMagic = "OVERFLWS"

// SealOverhead is what the sealed form is larger than what is in it: magic, key of
// the exchange, tag.
const SealOverhead = len(sealedMagic) + 32 + 16

// IsSealed tells whether b begins like the sealed form.
func IsSealed(b []byte) bool { return bytes.HasPrefix(b, []byte(sealedMagic)) }

// A SealKey is the X25519 public key of a recipient of the sealed form (RFC 7748,
// section 6.1).
type SealKey [32]byte

// String returns the key as 64 lowercase hexadecimal digits.
func (k SealKey) String() string { return hex.EncodeToString(k[:]) }

// ParseSealKey reads a key as it is printed.
func ParseSealKey(text string) (SealKey, error) {
	k, err := ParseKey(text)
	return SealKey(k), err
}

// ParseLine takes the line form apart and compares the members outside the
// signature with those of the message. It does not verify: the comparison is
// cheap, and its result is worth nothing unless Verify agrees. The line may be
// in the notation of the original's printed tracers, which was Python's.
func ParseLine(line []byte) (Signed, error) {
	if len(line) > MaxLine {
		return Signed{}, ErrTooLarge
	}
	if bytes.HasPrefix(line, []byte("{'")) && !bytes.ContainsAny(line, `"\`) {
		line = bytes.ReplaceAll(line, []byte("'"), []byte(`"`))
	}
	outer, err := parseObject(line)
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	sig := outer.member("signature")
	if sig == nil || len(sig.members) != 2 {
		return Signed{}, fmt.Errorf(`%w: no "signature" of a key and a signature`, ErrForm)
	}
	var s Signed
	if key, _ := sig.text("key"); !decodeKey(&s.Key, key) {
		return Signed{}, fmt.Errorf(`%w: "key" is not 64 lowercase hexadecimal digits`, ErrForm)
	}
	text, ok := sig.text("signature")
	if !ok {
		return Signed{}, fmt.Errorf(`%w: no "signature" in the signature`, ErrForm)
	}
	both, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return Signed{}, fmt.Errorf("%w: the signature is not canonical base64", ErrForm)
	}
	if len(both) < ed25519.SignatureSize+2 {
		return Signed{}, fmt.Errorf("%w: the signature is too short", ErrForm)
	}
	s.Signature, s.Message = [64]byte(both[:64]), both[64:]
	if len(s.Message) > maxLineMessage {
		return Signed{}, ErrTooLarge
	}
	inner, err := parseObject(s.Message)
	if err != nil {
		return Signed{}, fmt.Errorf("%w: message: %w", ErrForm, err)
	}
	outer.drop("signature")
	if inner.member("signature") != nil || !outer.equal(inner) {
		return Signed{}, ErrOutside
	}
	return s, nil
}

// decodeKey reads 64 lowercase hexadecimal digits.
func decodeKey(key *PublicKey, text string) bool {
	if len(text) != 2*len(key) {
		return false
	}
	for _, c := range []byte(text) {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(key[:], []byte(text))
	return err == nil
}

// ParseKey reads a public key as it is printed: 64 lowercase hexadecimal
// digits.
func ParseKey(text string) (PublicKey, error) {
	var key PublicKey
	if !decodeKey(&key, text) {
		return PublicKey{}, fmt.Errorf("%q is not a public key of 64 lowercase hexadecimal digits", text)
	}
	return key, nil
}

// String returns the key as 64 lowercase hexadecimal digits.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }
