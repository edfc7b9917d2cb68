// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Reading of JSON (RFC 8259) from strangers. encoding/json accepts what must
// not pass here: member names that come twice, or in other case, and text that
// is not UTF-8; two programs may read such a text differently. It also costs
// 90 kB of flash.

const (
	maxDepth  = 8
	maxValues = 256 // of a message, at all depths
)

type kind uint8

const (
	jsonNull kind = iota
	jsonFalse
	jsonTrue
	jsonNumber
	jsonString
	jsonArray
	jsonObject
)

// value is a JSON value. str is the decoded text of a string and the literal of
// a number.
type value struct {
	kind    kind
	str     string
	elems   []value
	members []member
}

type member struct {
	name  string
	value value
}

func (v *value) member(name string) *value {
	for i := range v.members {
		if v.members[i].name == name {
			return &v.members[i].value
		}
	}
	return nil
}

// text returns a member that is a string.
func (v *value) text(name string) (string, bool) {
	x := v.member(name)
	if x == nil || x.kind != jsonString {
		return "", false
	}
	return x.str, true
}

// path follows member names; nil if one is missing.
func (v *value) path(names ...string) *value {
	for _, name := range names {
		if v = v.member(name); v == nil {
			return nil
		}
	}
	return v
}

func (v *value) drop(name string) {
	for i := range v.members {
		if v.members[i].name == name {
			v.members = append(v.members[:i], v.members[i+1:]...)
			return
		}
	}
}

// equal compares values; the order of members does not count, and 1.0 is 1.
func (v *value) equal(w *value) bool {
	if v.kind != w.kind || len(v.elems) != len(w.elems) || len(v.members) != len(w.members) {
		return false
	}
	if v.kind == jsonNumber {
		return v.str == w.str || sameNumber(v.str, w.str)
	}
	if v.str != w.str {
		return false
	}
	for i := range v.elems {
		if !v.elems[i].equal(&w.elems[i]) {
			return false
		}
	}
	for i := range v.members {
		x := w.member(v.members[i].name)
		if x == nil || !v.members[i].value.equal(x) {
			return false
		}
	}
	return true
}

// sameNumber compares numbers of different spelling. Beyond 2^53 a float64 no
// longer tells integers apart.
func sameNumber(a, b string) bool {
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && x == y && math.Abs(x) < 1<<53
}

// uint returns the value of a non-negative integer.
func (v *value) uint(bits int) (uint64, bool) {
	if v == nil || v.kind != jsonNumber {
		return 0, false
	}
	n, err := strconv.ParseUint(v.str, 10, bits)
	return n, err == nil
}

type parser struct {
	text   []byte
	pos    int
	values int
}

var (
	errEnd   = errors.New("it ends too early")
	errDepth = errors.New("it nests too deep")
	errMany  = errors.New("it has too many values")
)

// parseObject reads a text that is one JSON object and nothing else.
func parseObject(text []byte) (*value, error) {
	p := parser{text: text}
	p.space()
	if p.pos == len(text) || text[p.pos] != '{' {
		return nil, errors.New("it is no JSON object")
	}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos != len(text) {
		return nil, p.unexpected()
	}
	return &v, nil
}

func (p *parser) unexpected() error {
	if p.pos >= len(p.text) {
		return errEnd
	}
	return fmt.Errorf("unexpected %q at byte %d", p.text[p.pos], p.pos)
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *parser) accept(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) value(depth int) (value, error) {
	if depth > maxDepth {
		return value{}, errDepth
	}
	if p.values++; p.values > maxValues {
		return value{}, errMany
	}
	switch c := p.peek(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, err := p.string()
		return value{kind: jsonString, str: s}, err
	case c == '-' || c >= '0' && c <= '9':
		s, err := p.number()
		return value{kind: jsonNumber, str: s}, err
	}
	for i, word := range [...]string{"null", "false", "true"} {
		if len(p.text)-p.pos >= len(word) && string(p.text[p.pos:p.pos+len(word)]) == word {
			p.pos += len(word)
			return value{kind: kind(i)}, nil
		}
	}
	return value{}, p.unexpected()
}

func (p *parser) object(depth int) (value, error) {
	v := value{kind: jsonObject}
	p.pos++
	if p.space(); p.accept('}') {
		return v, nil
	}
	for {
		p.space()
		if p.peek() != '"' {
			return v, p.unexpected()
		}
		name, err := p.string()
		if err != nil {
			return v, err
		}
		if v.member(name) != nil {
			return v, fmt.Errorf("member %q comes twice", name)
		}
		if p.space(); !p.accept(':') {
			return v, p.unexpected()
		}
		p.space()
		x, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.members = append(v.members, member{name, x})
		p.space()
		if p.accept('}') {
			return v, nil
		}
		if !p.accept(',') {
			return v, p.unexpected()
		}
	}
}

func (p *parser) array(depth int) (value, error) {
	v := value{kind: jsonArray}
	p.pos++
	if p.space(); p.accept(']') {
		return v, nil
	}
	for {
		p.space()
		x, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.elems = append(v.elems, x)
		p.space()
		if p.accept(']') {
			return v, nil
		}
		if !p.accept(',') {
			return v, p.unexpected()
		}
	}
}

func (p *parser) number() (string, error) {
	start := p.pos
	p.accept('-')
	if !p.accept('0') && !p.digits() {
		return "", p.unexpected()
	}
	if p.accept('.') && !p.digits() {
		return "", p.unexpected()
	}
	if p.accept('e') || p.accept('E') {
		if !p.accept('+') {
			p.accept('-')
		}
		if !p.digits() {
			return "", p.unexpected()
		}
	}
	return string(p.text[start:p.pos]), nil
}

func (p *parser) digits() bool {
	start := p.pos
	for p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
		p.pos++
	}
	return p.pos > start
}

func (p *parser) string() (string, error) {
	p.pos++
	var s []byte
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			p.pos++
			return string(s), nil
		case c < 0x20:
			return "", p.unexpected()
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			s = utf8.AppendRune(s, r)
		default:
			r, n := utf8.DecodeRune(p.text[p.pos:])
			if r == utf8.RuneError && n == 1 {
				return "", fmt.Errorf("byte %d is not UTF-8", p.pos)
			}
			s = append(s, p.text[p.pos:p.pos+n]...)
			p.pos += n
		}
	}
	return "", errEnd
}

func (p *parser) escape() (rune, error) {
	p.pos++
	c := p.peek()
	p.pos++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, ok := p.hex4()
		if ok && utf16.IsSurrogate(r) {
			low, ok2 := rune(0), false
			if p.accept('\\') && p.accept('u') {
				low, ok2 = p.hex4()
			}
			r = utf16.DecodeRune(r, low)
			ok = ok2 && r != utf8.RuneError
		}
		if ok {
			return r, nil
		}
	}
	return 0, fmt.Errorf("bad escape before byte %d", min(p.pos, len(p.text)))
}

func (p *parser) hex4() (rune, bool) {
	if len(p.text)-p.pos < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(p.text[p.pos:p.pos+4]), 16, 16)
	if err != nil {
		return 0, false
	}
	p.pos += 4
	return rune(n), true
}
