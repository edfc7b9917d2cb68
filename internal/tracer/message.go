// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"github.com/overflowd/overflowd/internal/flow"
)

// ErrMessage: the message is signed, but is no tracer of a version known here.
var ErrMessage = errors.New("not the message of a tracer")

// A Message is what a verified tracer says. Members that it did not have are
// zero; the flow's Known tells which of its fields were there.
type Message struct {
	Tracer
	SourceType string // as the sender named it, as "Netflow"
	Class      string
	Info       string
}

// Open verifies a tracer and reads its message: ErrSignature, or ErrMessage
// wrapped with the member that is wrong. Unknown members are passed over.
func (s *Signed) Open() (*Message, error) {
	if err := s.Verify(); err != nil {
		return nil, err
	}
	return s.Read()
}

// Read reads the message of a tracer that was verified before, as when it was
// stored.
func (s *Signed) Read() (*Message, error) {
	root, err := parseObject(s.Message)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	r := reader{}
	m := r.message(root, s.Key)
	if r.bad != "" {
		return nil, fmt.Errorf("%w: %s", ErrMessage, r.bad)
	}
	return m, nil
}

// reader takes typed members out of objects and remembers the first that is
// wrong.
type reader struct{ bad string }

func (r *reader) fail(name string) {
	if r.bad == "" {
		r.bad = name
	}
}

func (r *reader) message(root *value, key PublicKey) *Message {
	m := &Message{}
	if v := root.member("v"); v != nil {
		if n, ok := v.uint(32); !ok || n != 1 {
			r.fail(`"v" is not 1`)
		}
	}
	r.flow(&m.Flow, root.path("flowdata", "data"))
	if source := root.path("flowdata", "sourcetype"); source != nil {
		m.SourceType = r.text(source, "type")
		m.Flow.Source.Version = uint8(r.uint(source, "version", 8))
	}
	for _, p := range []flow.Protocol{flow.NetFlow, flow.IPFIX, flow.SFlow, flow.Capture, flow.Conntrack} {
		if m.SourceType == p.String() {
			m.Flow.Source.Protocol = p
		}
	}

	metadata := root.member("metadata")
	if metadata == nil {
		r.fail(`no "metadata"`)
		return m
	}
	m.Class, m.Info = r.text(metadata, "class"), r.text(metadata, "info")
	seconds := r.float(metadata, "time")
	if !(seconds > 0 && seconds < 1<<40) {
		r.fail(`"time" is no time`)
		return m
	}
	m.Time = int64(math.Round(seconds * 1000))

	if c := root.member("contact"); c != nil {
		m.Contact = Contact{Email: r.text(c, "email"), Identity: r.text(c, "identity"), URL: r.text(c, "url"),
			Role: r.text(c, "role"), ASN: uint32(r.uint(c, "asn", 32))}
	}
	if e := root.member("evidence"); e != nil {
		m.Evidence = Evidence{Spoofed: r.text(e, "spoofed"), Method: r.text(e, "method"), Point: r.text(e, "point"), Suspicion: r.texts(e, "suspicion")}
		switch m.Spoofed {
		case "yes", "no", "unknown":
		default:
			m.Spoofed = "" // no word that is known here
		}
	}
	if s := root.member("sampling"); s != nil {
		m.Rate = r.float(s, "rate")
		if !(m.Rate > 0 && m.Rate <= 1) {
			r.fail(`"rate" is no chance`)
		}
		m.Selected, m.Held = r.uint(s, "selected", 64), r.uint(s, "held", 64)
		if m.Selected == 0 || m.Held > m.Selected {
			r.fail(`"selected" or "held"`)
		}
		m.Flow.Interval = uint32(r.uint(s, "exporter_interval", 32))
	}
	if e := root.member("succeeds"); e != nil {
		m.Succeeds = r.endorsement(e, key)
	}
	if to := root.member("to"); to != nil {
		m.To = r.addr(root, "to")
	}
	m.Seq = r.uint(root, "seq", 64)
	if nonce := r.text(root, "nonce"); nonce != "" {
		n, err := strconv.ParseUint(nonce, 16, 64)
		if err != nil || len(nonce) != 16 {
			r.fail(`"nonce" is not 16 hexadecimal digits`)
		}
		for i := range m.Nonce {
			m.Nonce[i] = byte(n >> (56 - 8*i))
		}
	}
	return m
}

func (r *reader) flow(f *flow.Record, data *value) {
	if data == nil {
		r.fail(`no "flowdata" with "data"`)
		return
	}
	src, dst := r.addr(data, "saddr"), r.addr(data, "daddr")
	if src.Is4() != dst.Is4() {
		r.fail("addresses of two families")
	}
	f.Family = flow.IPv6
	if src.Is4() {
		f.Family = flow.IPv4
	}
	copy(f.Src[:], src.AsSlice())
	copy(f.Dst[:], dst.AsSlice())
	f.Protocol = uint8(r.uint(data, "protocol", 8))
	known := func(name string, bit flow.Field, bits int) uint64 {
		if data.member(name) != nil {
			f.Known |= bit
		}
		return r.uint(data, name, bits)
	}
	f.SrcPort = uint16(known("sport", flow.HasPorts, 16))
	f.DstPort = uint16(known("dport", flow.HasPorts, 16))
	f.TOS = uint8(known("tos", flow.HasTOS, 8))
	f.TCPFlags = uint8(known("flags", flow.HasTCPFlags, 8))
	f.Packets = known("pcount", flow.HasPackets, 64)
	f.Bytes = known("bcount", flow.HasBytes, 64)
	f.Start = r.seconds(known("stime", flow.HasStart, 53))
	f.End = r.seconds(known("etime", flow.HasEnd, 53))
	f.TTL = uint8(known("ttl", flow.HasTTL, 8))
}

func (r *reader) seconds(s uint64) int64 {
	if s > 1<<40 {
		r.fail(`"stime" or "etime"`)
		return 0
	}
	return int64(s) * 1000
}

func (r *reader) endorsement(v *value, key PublicKey) *Endorsement {
	e := &Endorsement{New: key, Since: int64(r.uint(v, "since", 63))}
	sig, err := base64.StdEncoding.Strict().DecodeString(r.text(v, "signature"))
	if !decodeKey(&e.Old, r.text(v, "key")) || err != nil || len(sig) != len(e.Signature) {
		r.fail(`"succeeds" is malformed`)
		return nil
	}
	e.Signature = [64]byte(sig)
	if !e.Valid() {
		r.fail(`"succeeds" is not signed by the key that it names`)
	}
	return e
}

// text returns a string member, "" if it is not there.
func (r *reader) text(v *value, name string) string {
	s, ok := v.text(name)
	if !ok && v.member(name) != nil {
		r.fail(strconv.Quote(name))
	}
	return s
}

// texts returns the strings of an array, nil if it is not there.
func (r *reader) texts(v *value, name string) (texts []string) {
	x := v.member(name)
	if x == nil {
		return nil
	}
	if x.kind != jsonArray {
		r.fail(strconv.Quote(name))
	}
	for i := range x.elems {
		if x.elems[i].kind != jsonString {
			r.fail(strconv.Quote(name))
		}
		texts = append(texts, x.elems[i].str)
	}
	return texts
}

// uint returns an integer member, 0 if it is not there.
func (r *reader) uint(v *value, name string, bits int) uint64 {
	x := v.member(name)
	if x == nil {
		return 0
	}
	n, ok := x.uint(bits)
	if !ok {
		r.fail(strconv.Quote(name))
	}
	return n
}

// float returns a number member, 0 if it is not there.
func (r *reader) float(v *value, name string) float64 {
	x := v.member(name)
	if x == nil {
		return 0
	}
	f, err := strconv.ParseFloat(x.str, 64)
	if x.kind != jsonNumber || err != nil {
		r.fail(strconv.Quote(name))
	}
	return f
}

// addr returns an address member, which must be there.
func (r *reader) addr(v *value, name string) netip.Addr {
	s, _ := v.text(name)
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		r.fail(strconv.Quote(name) + " is no address")
	}
	return a
}
