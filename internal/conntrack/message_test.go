// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/nlmsg"
)

// recorded returns the messages of a recording, which was made on a little-endian
// machine, as this machine's kernel would have written them.
func recorded(t testing.TB, name string) (messages []nlmsg.Message, whole []byte) {
	t.Helper()
	b, err := os.ReadFile("../../testdata/conntrack/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		turnMessages(t, b)
	}
	whole = b
	for len(b) > 0 {
		var m nlmsg.Message
		if m, b, err = nlmsg.Cut(b); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages, whole
}

// turnMessages changes the byte order of what is netlink's.
func turnMessages(t testing.TB, b []byte) {
	for len(b) > 0 {
		n := int(binary.LittleEndian.Uint32(b))
		for _, field := range [][]byte{b[:4], b[4:6], b[6:8], b[8:12], b[12:16]} {
			reverseBytes(field)
		}
		if b[5] == nlmsg.Done {
			reverseBytes(b[16:20])
		} else {
			turnAttributes(b[20:n])
		}
		b = b[n:]
	}
}

func turnAttributes(b []byte) {
	for len(b) > 0 {
		n, kind := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		reverseBytes(b[:2])
		reverseBytes(b[2:4])
		if kind&nested != 0 {
			turnAttributes(b[4:n])
		}
		b = b[min((n+3)/4*4, len(b)):]
	}
}

func reverseBytes(b []byte) {
	for i := range len(b) / 2 {
		b[i], b[len(b)-1-i] = b[len(b)-1-i], b[i]
	}
}

// fromText reads a line of conntrack -o extended,id.
func fromText(t testing.TB, line string) Entry {
	t.Helper()
	var e Entry
	fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "[DESTROY]"))
	number := func(s string, base, bits int) uint64 {
		n, err := strconv.ParseUint(s, base, bits)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		return n
	}
	keys := [2]*flow.Key{&e.Original, &e.Reply}
	for _, k := range keys {
		k.Family = map[string]flow.Family{"ipv4": flow.IPv4, "ipv6": flow.IPv6}[fields[0]]
		k.Protocol = uint8(number(fields[3], 10, 8))
	}
	direction := -1
	for _, f := range fields {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			continue
		}
		if name == "src" {
			direction++
		}
		switch name {
		case "src":
			copy(keys[direction].Src[:], netip.MustParseAddr(value).AsSlice())
		case "dst":
			copy(keys[direction].Dst[:], netip.MustParseAddr(value).AsSlice())
		case "sport":
			keys[direction].SrcPort = uint16(number(value, 10, 16))
		case "dport":
			keys[direction].DstPort = uint16(number(value, 10, 16))
		case "type":
			keys[direction].DstPort += uint16(number(value, 10, 8)) << 8
		case "code":
			keys[direction].DstPort += uint16(number(value, 10, 8))
		case "packets":
			e.Packets[direction] = number(value, 10, 64)
			e.Counted = true
		case "bytes":
			e.Bytes[direction] = number(value, 10, 64)
		case "zone", "zone-orig", "zone-reply":
			e.Zone = uint16(number(value, 10, 16))
		case "id": // ICMP's come first
			e.ID = uint32(number(value, 10, 32))
		}
	}
	return e
}

// byID reads the text that conntrack has printed.
func byID(t testing.TB, text []byte) map[uint32]Entry {
	t.Helper()
	entries := make(map[uint32]Entry)
	for line := range strings.Lines(string(text)) {
		e := fromText(t, line)
		entries[e.ID] = e
	}
	return entries
}

func TestRecordedConnectionsAreReadAsConntrackReadsThem(t *testing.T) {
	for name, kind := range map[string]uint16{"dump": typeNew, "destroy": typeDestroy} {
		messages, _ := recorded(t, name+".bin")
		text, err := os.ReadFile("../../testdata/conntrack/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[uint32]Entry)
		for _, m := range messages {
			if m.Kind == nlmsg.Done && m.Flags&nlmsg.Multi != 0 && m.Err() == nil && name == "dump" {
				continue
			}
			if m.Kind != kind {
				t.Fatalf("%s: a message of type %#x", name, m.Kind)
			}
			var e Entry
			if err := parse(m.Payload, &e); err != nil {
				t.Fatal(err)
			}
			got[e.ID] = e
		}
		want := byID(t, text)
		if len(want) < 15 {
			t.Fatalf("%s: only %d connections are recorded", name, len(want))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// attributes are the parts of a message, to be left out or spoilt.
func attributes(parts ...[]byte) []byte {
	return append([]byte{2, 0, 0, 0}, bytes.Join(parts, nil)...)
}

func attribute(kind uint16, parts ...[]byte) []byte {
	return appendAttribute(nil, kind, bytes.Join(parts, nil))
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	ip := attribute(ctaTupleIP, attribute(ctaIPv4Src, []byte{192, 0, 2, 1}), attribute(ctaIPv4Dst, []byte{192, 0, 2, 2}))
	ip6 := attribute(ctaTupleIP, attribute(ctaIPv6Src, make([]byte, 16)), attribute(ctaIPv6Dst, make([]byte, 16)))
	udp := attribute(ctaTupleProto, attribute(ctaProtoNum, []byte{17}))
	orig, reply := attribute(nested|ctaTupleOrig, ip, udp), attribute(nested|ctaTupleReply, ip, udp)
	for name, b := range map[string][]byte{
		"nothing":                         {},
		"three bytes":                     {2, 0, 0},
		"no attributes":                   attributes(),
		"no original tuple":               attributes(reply),
		"no reply tuple":                  attributes(orig),
		"an empty tuple":                  attributes(orig, attribute(ctaTupleReply)),
		"no addresses":                    attributes(orig, attribute(ctaTupleReply, udp)),
		"no protocol":                     attributes(orig, attribute(ctaTupleReply, ip)),
		"no protocol number":              attributes(orig, attribute(ctaTupleReply, ip, attribute(ctaTupleProto))),
		"one address":                     attributes(orig, attribute(ctaTupleReply, udp, attribute(ctaTupleIP, attribute(ctaIPv4Src, make([]byte, 4))))),
		"addresses of two families":       attributes(orig, attribute(ctaTupleReply, udp, attribute(ctaTupleIP, ip[4:], ip6[4:]))),
		"a source in IPv4 of 16 bytes":    attributes(orig, attribute(ctaTupleReply, udp, attribute(ctaTupleIP, attribute(ctaIPv4Src, make([]byte, 16)), ip[12:]))),
		"a source in IPv6 of 4 bytes":     attributes(orig, attribute(ctaTupleReply, udp, attribute(ctaTupleIP, attribute(ctaIPv6Src, make([]byte, 4)), ip6[24:]))),
		"a port of one byte":              attributes(orig, attribute(ctaTupleReply, ip, attribute(ctaTupleProto, udp[4:], attribute(ctaProtoSrcPort, []byte{1})))),
		"an ICMP type of two bytes":       attributes(orig, attribute(ctaTupleReply, ip, attribute(ctaTupleProto, udp[4:], attribute(ctaProtoICMPType, []byte{1, 2})))),
		"a protocol of no bytes":          attributes(orig, attribute(ctaTupleReply, ip, attribute(ctaTupleProto, attribute(ctaProtoNum)))),
		"a zone of four bytes":            attributes(orig, reply, attribute(ctaZone, make([]byte, 4))),
		"a zone of a tuple of four bytes": attributes(orig, attribute(ctaTupleReply, ip, udp, attribute(ctaTupleZone, make([]byte, 4)))),
		"an identifier of two bytes":      attributes(orig, reply, attribute(ctaID, make([]byte, 2))),
		"a counter of four bytes":         attributes(orig, reply, attribute(ctaCountersOrig, attribute(ctaCountersBytes, make([]byte, 4)))),
		"an attribute shorter than its header": attributes(orig, reply,
			binary.NativeEndian.AppendUint16(nil, 3), []byte{0, 0}),
		"an attribute of no length": attributes(orig, reply, make([]byte, 4)),
		"an attribute longer than the message": attributes(orig, reply,
			binary.NativeEndian.AppendUint16(nil, 9), []byte{0, 0, 0, 0, 0, 0}),
		"an attribute longer than its nest": attributes(orig, reply, attribute(ctaCountersOrig,
			binary.NativeEndian.AppendUint16(nil, 16), []byte{0, 0}), make([]byte, 16)),
		"bytes behind the last attribute": attributes(orig, reply, []byte{0, 0}),
	} {
		var e Entry
		if err := parse(b, &e); err != ErrFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
	var e Entry
	if err := parse(attributes(orig, reply), &e); err != nil || e.Counted || e.Original.Protocol != 17 {
		t.Errorf("the bare tuples: %v, %+v", err, e)
	}
	half := attribute(ctaCountersReply, attribute(ctaCountersBytes, make([]byte, 7), []byte{9}))
	if err := parse(attributes(orig, reply, half), &e); err != nil || e.Counted || e.Bytes != [2]uint64{} {
		t.Errorf("one counter of four: %v, %+v", err, e)
	}
}

func TestAnAnswerIsTakenToItsEnd(t *testing.T) {
	refused := int32(-1)
	empty := int32(-2)
	withError := func(errno int32) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.NativeEndian.PutUint32(b[len(b)-4:], uint32(errno))
			return b
		}
	}
	first := func(b []byte) []byte { return b[:binary.NativeEndian.Uint32(b)] }
	flags := func(flags uint16) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.NativeEndian.PutUint16(b[6:], flags)
			return b
		}
	}
	for name, c := range map[string]struct {
		change   func([]byte) []byte
		sequence uint32
		n        int
		done     bool
		err      error
	}{
		"a whole dump":                      {func(b []byte) []byte { return b }, 1, 17, true, nil},
		"the answer to another request":     {func(b []byte) []byte { return b }, 2, 0, false, nil},
		"a dump whose end is still to come": {func(b []byte) []byte { return b[:len(b)-20] }, 1, 17, false, nil},
		"a dump that was interrupted":       {flags(nlmsg.Multi | nlmsg.Interrupted), 1, 17, true, ErrInconsistent},
		"an error at the end":               {withError(refused), 1, 17, true, syscall.EPERM},
		"another error at the end":          {withError(empty), 1, 17, true, syscall.ENOENT},
		"one message of several":            {first, 1, 1, false, nil},
		"one message":                       {func(b []byte) []byte { return flags(0)(first(b)) }, 1, 1, true, nil},
		"nothing":                           {func([]byte) []byte { return nil }, 1, 0, false, nil},
		"a cut message":                     {func(b []byte) []byte { return b[:len(first(b))+20] }, 1, 1, true, ErrFormat},
		"a message that is malformed": {func(b []byte) []byte {
			binary.NativeEndian.PutUint16(b[20:], 1)
			return b
		}, 1, 16, true, ErrFormat},
	} {
		_, whole := recorded(t, "dump.bin")
		n := 0
		var e Entry
		done, err := take(c.change(whole), c.sequence, &e, func(*Entry) { n++ })
		if n != c.n || done != c.done || err != c.err {
			t.Errorf("%s: %d connections, done %v, %v", name, n, done, err)
		}
	}
}

// oracle reads a message by another walk over the attributes.
func oracle(b []byte) (e Entry, ok bool) {
	if len(b) < 4 {
		return e, false
	}
	d, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return e, false
	}
	d.ByteOrder = binary.BigEndian
	have := make(map[string]bool)
	for d.Next() {
		switch kind := d.Type(); kind {
		case ctaTupleOrig:
			d.Nested(func(d *netlink.AttributeDecoder) error { e.Original = oracleTuple(d, &e, have, "orig"); return nil })
		case ctaTupleReply:
			d.Nested(func(d *netlink.AttributeDecoder) error { e.Reply = oracleTuple(d, &e, have, "reply"); return nil })
		case ctaCountersOrig, ctaCountersReply:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				delete(have, string(rune('0'+kind))+"1")
				delete(have, string(rune('0'+kind))+"2")
				for d.Next() {
					switch d.Type() {
					case ctaCountersPackets:
						e.Packets[kind-ctaCountersOrig] = d.Uint64()
						have[string(rune('0'+kind))+"1"] = true
					case ctaCountersBytes:
						e.Bytes[kind-ctaCountersOrig] = d.Uint64()
						have[string(rune('0'+kind))+"2"] = true
					}
				}
				return nil
			})
		case ctaID:
			e.ID = d.Uint32()
		case ctaZone:
			e.Zone = d.Uint16()
		}
	}
	orig, reply := string(rune('0'+ctaCountersOrig)), string(rune('0'+ctaCountersReply))
	if e.Counted = have[orig+"1"] && have[orig+"2"] && have[reply+"1"] && have[reply+"2"]; !e.Counted {
		e.Packets, e.Bytes = [2]uint64{}, [2]uint64{}
	}
	return e, d.Err() == nil && have["orig"] && have["reply"] && !have["spoilt"]
}

func oracleTuple(d *netlink.AttributeDecoder, e *Entry, have map[string]bool, name string) (k flow.Key) {
	var addresses, protocol bool
	for d.Next() {
		switch d.Type() {
		case ctaTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				k.Src, k.Dst, k.Family = [16]byte{}, [16]byte{}, 0
				var bits int
				for d.Next() {
					b := d.Bytes()
					switch kind := d.Type(); kind {
					case ctaIPv4Src, ctaIPv6Src, ctaIPv4Dst, ctaIPv6Dst:
						if len(b) != 4+12*int((kind-1)/2) {
							have["spoilt"] = true
							continue
						}
						if kind%2 == 1 {
							copy(k.Src[:], b)
						} else {
							copy(k.Dst[:], b)
						}
						bits |= 1 << kind
					}
				}
				k.Family = map[int]flow.Family{6: flow.IPv4, 24: flow.IPv6}[bits]
				if addresses = true; k.Family == 0 {
					have["spoilt"] = true
				}
				return nil
			})
		case ctaTupleProto:
			protocol = true
			d.Nested(func(d *netlink.AttributeDecoder) error {
				number := false
				for d.Next() {
					switch d.Type() {
					case ctaProtoNum:
						k.Protocol, number = d.Uint8(), true
					case ctaProtoSrcPort:
						k.SrcPort = d.Uint16()
					case ctaProtoDstPort:
						k.DstPort = d.Uint16()
					case ctaProtoICMPType, ctaProtoICMPv6Type:
						k.DstPort = k.DstPort%256 + 256*uint16(d.Uint8())
					case ctaProtoICMPCode, ctaProtoICMPv6Code:
						k.DstPort = k.DstPort/256*256 + uint16(d.Uint8())
					}
				}
				if !number {
					have["spoilt"] = true
				}
				if k.Protocol == 47 {
					k.SrcPort, k.DstPort = 0, 0
				}
				return nil
			})
		case ctaTupleZone:
			e.Zone = d.Uint16()
		}
	}
	if !addresses || !protocol {
		have["spoilt"] = true
	}
	have[name] = true
	return k
}

// mayBeEmpty reports whether there can be an attribute of length 0, less than its
// header's, which the oracle takes for one of length 4 and the kernel for the end.
func mayBeEmpty(b []byte) bool {
	for i := 4; i+4 <= len(b); i += 4 {
		if b[i] == 0 && b[i+1] == 0 {
			return true
		}
	}
	return false
}

// FuzzParse compares with netlink's own walk over attributes.
func FuzzParse(f *testing.F) {
	seeds := 0
	for _, name := range []string{"dump.bin", "destroy.bin"} {
		messages, _ := recorded(f, name)
		for _, m := range messages {
			f.Add(m.Payload)
			seeds++
		}
	}
	if seeds < 30 {
		f.Fatalf("only %d seeds", seeds)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Entry
		err := parse(b, &got)
		want, ok := oracle(b)
		if err != nil && ok && mayBeEmpty(b) {
			return
		}
		if (err == nil) != ok {
			t.Fatalf("%v, but the oracle says %v", err, ok)
		}
		if ok && want != got {
			t.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
		}
	})
}

func TestParsingDoesNotAllocate(t *testing.T) {
	messages, whole := recorded(t, "dump.bin")
	var e Entry
	n := testing.AllocsPerRun(100, func() {
		for b := whole; len(b) > 0; {
			var m nlmsg.Message
			m, b, _ = nlmsg.Cut(b)
			parse(m.Payload, &e)
			e.Other(&e.Reply)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d messages", n, len(messages))
	}
}

func TestAQueryHoldsItsKey(t *testing.T) {
	messages, _ := recorded(t, "dump.bin")
	tried := 0
	for _, m := range messages {
		var e, asked Entry
		if parse(m.Payload, &e) != nil || e.Original.Protocol == protoICMP || e.Original.Protocol == protoICMPv6 {
			continue
		}
		// As if the answer held the tuple in both directions.
		b := appendQuery(nil, &e.Original)
		b = append(b, attribute(ctaTupleReply, b[8:])...)
		if err := parse(b, &asked); err != nil || asked.Original != e.Original || asked.Reply != e.Original {
			t.Errorf("%v: asked for %+v, want %+v", err, asked.Original, e.Original)
		}
		tried++
	}
	if tried < 10 {
		t.Errorf("only %d queries", tried)
	}
}

func BenchmarkParse(b *testing.B) {
	messages, _ := recorded(b, "dump.bin")
	messages = messages[:len(messages)-1] // the last is the end
	var e Entry
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if parse(messages[i%len(messages)].Payload, &e) != nil {
			b.Fatal("malformed")
		}
	}
}
