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
//	succeeds <public key> <Unix time> <signature, base64>    (up to 64, oldest first)
//	check <the first 8 bytes of the SHA-256 of the lines above, hexadecimal>
//
// Each line ends with a newline, words are one space apart and hexadecimal
// digits are lowercase. An endorsement's new key is the public key of the next
// line, and for the last one that of the secret.
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

// ParseText reads an export. Line ends may be those of another system, and
// blank lines may surround it; nothing else may differ from what AppendText
// writes. The errors never contain the secret.
func ParseText(text []byte) (*Identity, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("it is larger than the %d bytes of an export", MaxText)
	}
	body := strings.ReplaceAll(string(text), "\r\n", "\n")
	first := 1 + len(body) - len(strings.TrimLeft(body, "\n"))
	lines := strings.Split(strings.Trim(body, "\n"), "\n")
	if lines[0] != textHead {
		return nil, fmt.Errorf("line %d: it does not begin with %q", first, textHead)
	}
	last := len(lines) - 1
	sum, ok := strings.CutPrefix(lines[last], "check ")
	if !ok || last < 3 {
		return nil, fmt.Errorf(`line %d: it does not end with "check": a part is missing`, first+last)
	}
	id := &Identity{}
	for i, line := range lines[1:last] {
		if err := id.parseLine(i, line); err != nil {
			return nil, fmt.Errorf("line %d: %w", first+1+i, err)
		}
	}
	if sum != checksum([]byte(strings.Join(lines[:last], "\n")+"\n")) {
		return nil, fmt.Errorf(`line %d: "check" does not fit: a part is missing or changed`, first+last)
	}
	next := id.Public()
	for i := len(id.Succession) - 1; i >= 0; i-- {
		id.Succession[i].New, next = next, id.Succession[i].Old
	}
	if err := id.check(); err != nil {
		return nil, err
	}
	return id, nil
}

// parseLine reads the i-th line after the head.
func (id *Identity) parseLine(i int, line string) error {
	words := strings.Split(line, " ")
	switch {
	case i == 0:
		if len(words) != 2 || words[0] != "secret" {
			return errors.New(`"secret" is missing`)
		}
		seed, err := tracer.ParseKey(words[1]) // of the same form
		if err != nil {
			return errors.New("a secret has 64 lowercase hexadecimal digits")
		}
		id.Private = ed25519.NewKeyFromSeed(seed[:])
	case i == 1:
		if len(words) != 2 || words[0] != "created" {
			return errors.New(`"created" is missing`)
		}
		seconds, err := parseTime(words[1])
		if err != nil {
			return err
		}
		id.Created = time.Unix(seconds, 0)
	case i-2 == maxSuccession:
		return fmt.Errorf("there are more than %d endorsements", maxSuccession)
	default:
		if len(words) != 4 || words[0] != "succeeds" {
			return errors.New(`only "succeeds" may stand here, with a public key, a time and a signature`)
		}
		old, err := tracer.ParseKey(words[1])
		if err != nil {
			return errors.New("a public key has 64 lowercase hexadecimal digits")
		}
		since, err := parseTime(words[2])
		if err != nil {
			return err
		}
		signature, err := base64.StdEncoding.Strict().DecodeString(words[3])
		if err != nil || len(signature) != ed25519.SignatureSize || strings.ContainsAny(words[3], "\r\n") {
			return errors.New("the signature is not 64 bytes in base64")
		}
		id.Succession = append(id.Succession, tracer.Endorsement{
			Old: old, Since: since, Signature: [ed25519.SignatureSize]byte(signature),
		})
	}
	return nil
}

// parseTime reads Unix seconds in the one way they can be written.
func parseTime(word string) (int64, error) {
	seconds, err := strconv.ParseInt(word, 10, 64)
	if err != nil || seconds < 0 || seconds > maxTime || strconv.FormatInt(seconds, 10) != word {
		return 0, fmt.Errorf("%.20q is not a time in Unix seconds", word)
	}
	return seconds, nil
}
