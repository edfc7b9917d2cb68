// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// MaxText is the largest export that is read, in bytes.
const MaxText = 64 << 10

const textHead = "overflowd identity 1"

// AppendText appends the export of an identity: a text that moves the secret
// key from one machine to another, whatever their byte orders.
//
//	overflowd identity 1
//	secret <seed of RFC 8032, 64 hexadecimal digits>
//	created <Unix time>
//	succeeds <public key> <Unix time> <signature, base64>    (any number)
//	check <the first 8 bytes of the SHA-256 of the lines above, hexadecimal>
func (id *Identity) AppendText(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, textHead+"\nsecret "...)
	dst = hex.AppendEncode(dst, id.Private.Seed())
	dst = fmt.Appendf(dst, "\ncreated %d\n", id.Created.Unix())
	for i := range id.Succession {
		e := &id.Succession[i]
		dst = fmt.Appendf(dst, "succeeds %s %d ", e.Old, e.Since)
		dst = base64.StdEncoding.AppendEncode(dst, e.Signature[:])
		dst = append(dst, '\n')
	}
	return fmt.Appendf(dst, "check %s\n", checksum(dst[start:]))
}

func checksum(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// ParseText reads an export. Line ends may be those of another system.
func ParseText(text []byte) (*Identity, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("an export has at most %d bytes", MaxText)
	}
	body := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")) + "\n"
	if !strings.HasPrefix(body, textHead+"\n") {
		return nil, fmt.Errorf("it does not begin with %q", textHead)
	}
	at := strings.LastIndex(strings.TrimSuffix(body, "\n"), "\n") + 1
	sum, ok := strings.CutPrefix(body[at:len(body)-1], "check ")
	if !ok {
		return nil, errors.New(`it does not end with a "check" line: a part is missing`)
	}
	if sum != checksum([]byte(body[:at])) {
		return nil, errors.New(`the "check" line does not fit: a part is missing or changed`)
	}
	id := &Identity{}
	for n, line := range strings.Split(strings.TrimSuffix(body[:at], "\n"), "\n")[1:] {
		if err := id.parseLine(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+2, err)
		}
	}
	if id.Private == nil {
		return nil, errors.New(`it has no "secret" line`)
	}
	next := id.Public()
	for i := len(id.Succession) - 1; i >= 0; i-- {
		id.Succession[i].New, next = next, id.Succession[i].Old
	}
	return id, id.check()
}

func (id *Identity) parseLine(words []string) error {
	switch {
	case len(words) == 2 && words[0] == "secret" && id.Private == nil:
		seed, err := hex.DecodeString(words[1])
		if err != nil || len(seed) != ed25519.SeedSize {
			return errors.New("a secret has 64 hexadecimal digits")
		}
		id.Private = ed25519.NewKeyFromSeed(seed)
		return nil
	case len(words) == 2 && words[0] == "created":
		seconds, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return errors.New("a time is a number")
		}
		id.Created = time.Unix(seconds, 0)
		return nil
	case len(words) == 4 && words[0] == "succeeds":
		e := tracer.Endorsement{}
		old, err := tracer.ParseKey(words[1])
		since, err2 := strconv.ParseInt(words[2], 10, 64)
		signature, err3 := base64.StdEncoding.Strict().DecodeString(words[3])
		if errors.Join(err, err2, err3) != nil || len(signature) != len(e.Signature) {
			return errors.New("an endorsement is a public key, a time and a signature")
		}
		e.Old, e.Since, e.Signature = old, since, [ed25519.SignatureSize]byte(signature)
		id.Succession = append(id.Succession, e)
		return nil
	}
	return errors.New("it is not understood")
}
