// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"math"
	"net/netip"
	"strconv"
	"unsafe"
)

// A Glance is what is to be known of a message before anything is spent on it:
// whom it is for, when it was made, and which one it is.
type Glance struct {
	To    netip.Addr // not valid if there is none
	Time  int64      // milliseconds since the Unix epoch, 0 if there is none
	Nonce [8]byte    // zero if there is none
}

// Peek reads a message that nobody has verified, in one pass and without an
// allocation. It finds the members that Open finds, in the same messages and
// some that Open refuses; ok is false if the message is no tracer of any kind.
func Peek(message []byte) (g Glance, ok bool) {
	s := skimmer{text: message}
	ok = s.object(func(name []byte) bool {
		switch string(name) {
		case "to":
			text, ok := s.string()
			if !ok {
				return false
			}
			var err error
			g.To, err = parseAddr(text)
			return err == nil
		case "nonce":
			text, ok := s.string()
			return ok && hexNonce(&g.Nonce, text)
		case "metadata":
			return s.object(func(name []byte) bool {
				if string(name) != "time" {
					return s.skip()
				}
				from := s.pos
				if !s.skip() {
					return false
				}
				seconds, ok := parseSeconds(s.text[from:s.pos])
				g.Time = int64(math.Round(seconds * 1000))
				return ok && seconds > 0 && seconds < 1<<40
			})
		}
		return s.skip()
	})
	s.space()
	return g, ok && s.pos == len(message)
}

// skimmer passes over JSON. It takes more than parser does.
type skimmer struct {
	text []byte
	pos  int
}

func (s *skimmer) space() {
	for s.pos < len(s.text) && (s.text[s.pos] == ' ' || s.text[s.pos] == '\t' || s.text[s.pos] == '\n' || s.text[s.pos] == '\r') {
		s.pos++
	}
}

func (s *skimmer) accept(c byte) bool {
	s.space()
	if s.pos < len(s.text) && s.text[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// object calls member with each name of an object, which passes over the value.
func (s *skimmer) object(member func(name []byte) bool) bool {
	if !s.accept('{') {
		return false
	}
	if s.accept('}') {
		return true
	}
	for {
		name, ok := s.string()
		if !ok || !s.accept(':') {
			return false
		}
		if s.space(); !member(name) {
			return false
		}
		if s.accept('}') {
			return true
		}
		if !s.accept(',') {
			return false
		}
	}
}

// string returns what is between the quotation marks; decoded if it has escapes,
// for which it allocates: nobody writes a name or an address with them but who
// wants to try us.
func (s *skimmer) string() ([]byte, bool) {
	if s.space(); s.pos >= len(s.text) || s.text[s.pos] != '"' {
		return nil, false
	}
	from := s.pos
	end, escaped := s.close()
	if end < 0 {
		return nil, false
	}
	s.pos = end + 1
	if !escaped {
		return s.text[from+1 : end], true
	}
	p := parser{text: s.text[:s.pos], pos: from}
	text, err := p.string()
	return []byte(text), err == nil
}

// close finds the end of the string that begins at pos.
func (s *skimmer) close() (end int, escaped bool) {
	for i := s.pos + 1; i < len(s.text); i++ {
		n := bytes.IndexByte(s.text[i:], '"')
		if n < 0 {
			return -1, false
		}
		back := bytes.IndexByte(s.text[i:i+n], '\\')
		if back < 0 {
			return i + n, escaped
		}
		escaped = true
		i += back + 1 // and the character that is escaped
	}
	return -1, false
}

// skip passes over a value.
func (s *skimmer) skip() bool {
	depth := 0
	for {
		if s.space(); s.pos >= len(s.text) {
			return false
		}
		switch c := s.text[s.pos]; c {
		case '"':
			end, _ := s.close()
			if end < 0 {
				return false
			}
			s.pos = end + 1
		case '{', '[':
			if depth++; depth > maxDepth {
				return false
			}
			s.pos++
			continue
		case '}', ']':
			if depth == 0 {
				return false
			}
			depth--
			s.pos++
		case ',', ':':
			if depth == 0 {
				return false
			}
			s.pos++
			continue
		default:
			from := s.pos
			for s.pos < len(s.text) && !bytes.ContainsRune([]byte(" \t\r\n,:{}[]\""), rune(s.text[s.pos])) {
				s.pos++
			}
			if s.pos == from {
				return false
			}
		}
		if depth == 0 {
			return true
		}
	}
}

// parseAddr is netip.ParseAddr of bytes that nobody keeps: an address without a
// zone holds nothing of its text.
func parseAddr(text []byte) (netip.Addr, error) {
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(text), len(text)))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, ErrMessage
	}
	return a, nil
}

func hexNonce(nonce *[8]byte, text []byte) bool {
	if len(text) == 0 {
		return true // as if it were not there
	}
	if len(text) != 16 {
		return false
	}
	for i, c := range text {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c >= 'a' && c <= 'f':
			d = c - 'a' + 10
		case c >= 'A' && c <= 'F':
			d = c - 'A' + 10
		default:
			return false
		}
		nonce[i/2] = nonce[i/2]<<4 | d
	}
	return true
}

// parseSeconds reads a number. Of the usual spelling, digits with three decimals,
// it makes no string.
func parseSeconds(text []byte) (float64, bool) {
	whole, fraction, scale := uint64(0), uint64(0), 1.0
	point := false
	for i, c := range text {
		switch {
		case c == '.' && !point && i > 0:
			point = true
			continue
		case c < '0' || c > '9' || len(text) > 17:
			f, err := strconv.ParseFloat(string(text), 64)
			return f, err == nil
		}
		if point {
			fraction, scale = fraction*10+uint64(c-'0'), scale*10
		} else {
			whole = whole*10 + uint64(c-'0')
		}
	}
	return float64(whole) + float64(fraction)/scale, len(text) > 0
}
