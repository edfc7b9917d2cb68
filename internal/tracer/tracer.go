// SPDX-License-Identifier: BSD-3-Clause

// Package tracer builds, signs, parses and verifies tracers: the messages that
// tell the two ends of a flow who saw it. SPEC.md beside this file is the
// definition; this package implements it.
//
// The datagram form, for UDP port 65535:
//
//	 0  magic "OVERFLW1"
//	 8  Ed25519 public key, 32 bytes
//	40  Ed25519 signature of the message, 64 bytes
//	104 message: one JSON object, at most 1,128 bytes
//
// The line form is the same message as a line of JSON with the key and the
// signature in a member of their own.
package tracer

import (
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"strconv"
	"unicode/utf8"

	"github.com/overflowd/overflowd/internal/flow"
)

// Port is the UDP port that tracers are sent to.
const Port = 65535

// A Tracer is what one end of a flow is told. What is zero is left out of the
// message, but for the fields of the flow, whose Known decides.
type Tracer struct {
	Flow    flow.Record
	Time    int64 // when the tracer was made, milliseconds since the Unix epoch
	Contact Contact
	Evidence
	// Rate is the chance of one packet to be selected. Selected packets stand
	// behind this tracer, so that Selected/Rate estimates the packets that
	// passed. Held of them were selected earlier, also of other flows, and
	// held back for the same recipient and end of the flow.
	Rate           float64
	Selected, Held uint64
	// Succeeds, if not nil, is the word of the key that was used before.
	Succeeds *Endorsement
	To       netip.Addr // the recipient; not valid for a printed tracer
	Nonce    [8]byte
	Seq      uint64 // counts the tracers of one run of the sender, from 1
}

// Contact is who answers for the network that saw the flow. Role is what for:
// "abuse", "noc" or "tech".
type Contact struct {
	Email, Identity, URL, Role string
	ASN                        uint32
}

// Evidence is what the sender knows of the flow. The words are those of SPEC.md,
// section 1.1. Without any suspicion the tracer is but information.
type Evidence struct {
	Spoofed, Method, Point string
	Suspicion              []string
}

// Values of metadata.class.
const (
	Informational = "INFORMATIONAL"
	Suspicious    = "SUSPICIOUS"
)

// Empty tells whether there is no way to reach anybody. An AS number alone is
// one: registries know its contacts.
func (c *Contact) Empty() bool { return *c == Contact{} }

// AppendMessage appends the JSON object that is to be signed. Strings must be
// valid UTF-8.
func (t *Tracer) AppendMessage(dst []byte) []byte {
	f := &t.Flow
	dst = append(dst, `{"flowdata":{"sourcetype":{"type":`...)
	dst = AppendString(dst, f.Source.Protocol.String())
	if f.Source.Version != 0 {
		dst = appendUint(dst, `,"version":`, uint64(f.Source.Version))
	}
	dst = append(dst, `},"data":{"saddr":"`...)
	dst = f.SrcAddr().AppendTo(dst)
	dst = append(dst, `","daddr":"`...)
	dst = f.DstAddr().AppendTo(dst)
	dst = append(dst, '"')
	if f.Known&flow.HasPorts != 0 {
		dst = appendUint(dst, `,"sport":`, uint64(f.SrcPort))
		dst = appendUint(dst, `,"dport":`, uint64(f.DstPort))
	}
	dst = appendUint(dst, `,"protocol":`, uint64(f.Protocol))
	if f.Known&flow.HasTOS != 0 {
		dst = appendUint(dst, `,"tos":`, uint64(f.TOS))
	}
	if f.Known&flow.HasTCPFlags != 0 {
		dst = appendUint(dst, `,"flags":`, uint64(f.TCPFlags))
	}
	if f.Known&flow.HasPackets != 0 {
		dst = appendUint(dst, `,"pcount":`, f.Packets)
	}
	if f.Known&flow.HasBytes != 0 {
		dst = appendUint(dst, `,"bcount":`, f.Bytes)
	}
	if f.Known&flow.HasStart != 0 {
		dst = append(dst, `,"stime":`...)
		dst = strconv.AppendInt(dst, floorSeconds(f.Start), 10)
	}
	if f.Known&flow.HasEnd != 0 {
		dst = append(dst, `,"etime":`...)
		dst = strconv.AppendInt(dst, floorSeconds(f.End), 10)
	}
	if f.Known&flow.HasTTL != 0 {
		dst = appendUint(dst, `,"ttl":`, uint64(f.TTL))
	}
	dst = append(dst, `}},"metadata":{"class":"`...)
	if len(t.Suspicion) > 0 {
		dst = append(dst, Suspicious...)
	} else {
		dst = append(dst, Informational...)
	}
	dst = append(dst, `","info":"FLOWSEEN","time":`...)
	dst = appendMillis(dst, t.Time)
	dst = append(dst, '}')
	dst = t.Contact.append(dst)
	dst = append(dst, `,"sampling":{"rate":`...)
	dst = strconv.AppendFloat(dst, t.Rate, 'f', -1, 64)
	dst = appendUint(dst, `,"selected":`, t.Selected)
	if t.Held != 0 {
		dst = appendUint(dst, `,"held":`, t.Held)
	}
	if f.Interval != 0 {
		dst = appendUint(dst, `,"exporter_interval":`, uint64(f.Interval))
	}
	dst = append(dst, '}')
	dst = t.Evidence.append(dst)
	if e := t.Succeeds; e != nil {
		dst = append(dst, `,"succeeds":{"key":"`...)
		dst = hex.AppendEncode(dst, e.Old[:])
		dst = append(dst, `","since":`...)
		dst = strconv.AppendInt(dst, e.Since, 10)
		dst = append(dst, `,"signature":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Signature[:])
		dst = append(dst, `"}`...)
	}
	if t.To.IsValid() {
		dst = append(dst, `,"to":"`...)
		dst = t.To.AppendTo(dst)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"nonce":"`...)
	dst = hex.AppendEncode(dst, t.Nonce[:])
	dst = appendUint(dst, `","seq":`, t.Seq)
	return append(dst, `,"v":1}`...)
}

func (c *Contact) append(dst []byte) []byte {
	if c.Empty() {
		return dst
	}
	dst = append(dst, `,"contact":{`...)
	for _, m := range []struct{ name, value string }{
		{`"email":`, c.Email}, {`"identity":`, c.Identity}, {`"url":`, c.URL}, {`"role":`, c.Role},
	} {
		if m.value != "" {
			dst = append(dst, m.name...)
			dst = append(AppendString(dst, m.value), ',')
		}
	}
	if c.ASN != 0 {
		dst = append(appendUint(dst, `"asn":`, uint64(c.ASN)), ',')
	}
	dst[len(dst)-1] = '}'
	return dst
}

func (e *Evidence) append(dst []byte) []byte {
	before := len(dst)
	dst = append(dst, `,"evidence":{`...)
	empty := len(dst)
	for _, m := range []struct{ name, value string }{
		{`"spoofed":`, e.Spoofed}, {`"method":`, e.Method}, {`"point":`, e.Point},
	} {
		if m.value != "" {
			dst = append(dst, m.name...)
			dst = append(AppendString(dst, m.value), ',')
		}
	}
	if len(e.Suspicion) > 0 {
		dst = append(dst, `"suspicion":[`...)
		for _, s := range e.Suspicion {
			dst = append(AppendString(dst, s), ',')
		}
		dst[len(dst)-1] = ']'
		dst = append(dst, ',')
	}
	if len(dst) == empty {
		return dst[:before]
	}
	dst[len(dst)-1] = '}'
	return dst
}

func appendUint(dst []byte, name string, v uint64) []byte {
	return strconv.AppendUint(append(dst, name...), v, 10)
}

// appendMillis appends milliseconds as seconds with three decimals.
func appendMillis(dst []byte, ms int64) []byte {
	if ms < 0 {
		ms = 0
	}
	dst = strconv.AppendInt(dst, ms/1000, 10)
	frac := ms % 1000
	return append(dst, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
}

func floorSeconds(ms int64) int64 {
	if ms < 0 {
		return (ms - 999) / 1000
	}
	return ms / 1000
}

// AppendString appends s, which is valid UTF-8, as a JSON string (RFC 8259,
// section 7).
func AppendString(dst []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
