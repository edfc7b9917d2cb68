// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goflow2 "github.com/netsampler/goflow2/v2/decoders/netflow"
	"github.com/netsampler/goflow2/v2/decoders/netflowlegacy"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netflow"
	"github.com/overflowd/overflowd/internal/packet"
	"github.com/overflowd/overflowd/internal/pcapfile"
)

// datagrams returns the UDP datagrams of a capture.
func datagrams(t *testing.T, capture string) (from []netip.AddrPort, payloads [][]byte) {
	f, err := os.Open(capture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapfile.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var p pcapfile.Packet
		if err := r.Next(&p); err == io.EOF {
			return from, payloads
		} else if err != nil {
			t.Fatal(err)
		}
		var d packet.Datagram
		if err := packet.ParseUDP(p.LinkType, p.Data, &d); err != nil {
			t.Fatal(err)
		}
		from, payloads = append(from, d.Src), append(payloads, bytes.Clone(d.Payload))
	}
}

// fieldsOf are the elements that are compared, and how we have them; those that
// begin with src and dst are of either family.
func fieldsOf(r *flow.Record) map[uint16]uint64 {
	return map[uint16]uint64{1: r.Bytes, 2: r.Packets, 4: uint64(r.Protocol), 5: uint64(r.TOS), 6: uint64(r.TCPFlags), 7: uint64(r.SrcPort), 11: uint64(r.DstPort),
		10: uint64(r.Ingress), 14: uint64(r.Egress), 16: uint64(r.SrcAS), 17: uint64(r.DstAS), 58: uint64(r.VLAN), 89: uint64(r.ForwardingStatus)}
}

// TestRecordingsAreReadAsGoflow2ReadsThem is a third witness beside tshark and
// nfdump, on the bytes of each field.
func TestRecordingsAreReadAsGoflow2ReadsThem(t *testing.T) {
	captures, _ := filepath.Glob("../../testdata/netflow/*.pcap")
	compared := 0
	for _, capture := range captures {
		name := filepath.Base(capture)
		if !strings.Contains(name, "-v9") && !strings.Contains(name, "-ipfix") {
			continue
		}
		from, payloads := datagrams(t, capture)
		ours, theirs := netflow.NewDecoder(64), goflow2.CreateTemplateSystem()
		for i, b := range payloads {
			var records []flow.Record
			if err := ours.Decode(from[i], b, func(r *flow.Record) { records = append(records, *r) }); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var v9 goflow2.NFv9Packet
			var ipfix goflow2.IPFIXPacket
			if strings.Contains(name, "-v9") {
				// softflowd counts flows there, and goflow2 reads so many sets.
				binary.BigEndian.PutUint16(b[2:], 0xffff)
			}
			if err := goflow2.DecodeMessageVersion(bytes.NewBuffer(b), theirs, &v9, &ipfix); err != nil {
				t.Fatalf("%s: goflow2: %v", name, err)
			}
			next := 0
			for _, set := range append(v9.FlowSets, ipfix.FlowSets...) {
				data, ok := set.(goflow2.DataFlowSet)
				if !ok {
					continue
				}
				for _, theirs := range data.Records {
					if next == len(records) {
						t.Fatalf("%s, datagram %d: goflow2 has more than our %d records", name, i, next)
					}
					r := &records[next]
					next++
					if back := reverse(&theirs, 2); back != 0 {
						if value(&theirs, 2) == 0 {
							continue // of the way back alone
						}
						if records[next].Packets != back || records[next].Bytes != reverse(&theirs, 1) {
							t.Errorf("%s, datagram %d: %d packets back, goflow2 has %d", name, i, records[next].Packets, back)
						}
						next++
					}
					if problem := differs(r, &theirs); problem != "" {
						t.Errorf("%s, datagram %d, record %d: %s", name, i, next, problem)
					}
					compared++
				}
			}
			if next != len(records) {
				t.Errorf("%s, datagram %d: %d records, goflow2 has %d", name, i, len(records), next)
			}
		}
	}
	if compared < 2500 {
		t.Errorf("%d records compared", compared)
	}
}

// value returns a field of goflow2's; 0 if there is none.
func value(r *goflow2.DataRecord, id uint16) uint64 {
	for _, f := range r.Values {
		if !f.PenProvided && f.Type == id {
			return number(f.Value)
		}
	}
	return 0
}

func reverse(r *goflow2.DataRecord, id uint16) uint64 {
	for _, f := range r.Values {
		if f.PenProvided && f.Pen == 29305 && f.Type == id {
			return number(f.Value)
		}
	}
	return 0
}

func number(v any) (n uint64) {
	for _, x := range v.([]byte) {
		n = n<<8 | uint64(x)
	}
	return n
}

// differs says in which field the two differ.
func differs(r *flow.Record, theirs *goflow2.DataRecord) string {
	ours := fieldsOf(r)
	if r.Protocol == 1 && value(theirs, 32) != 0 {
		ours[11] = 0 // nfreplay has the type and code in 32, and a port of 0 beside
	}
	for _, f := range theirs.Values {
		b := f.Value.([]byte)
		var a netip.Addr
		switch {
		case f.PenProvided:
			continue
		case f.Type == 8 || f.Type == 27:
			a = r.SrcAddr()
		case f.Type == 12 || f.Type == 28:
			a = r.DstAddr()
		default:
			if want, ok := ours[f.Type]; ok && number(b) != want {
				return fmt.Sprintf("element %d is %d, goflow2 has %d", f.Type, want, number(b))
			}
			continue
		}
		if theirs, _ := netip.AddrFromSlice(b); theirs != a {
			return fmt.Sprintf("element %d is %v, goflow2 has %v", f.Type, a, theirs)
		}
	}
	return ""
}

// TestRecordingsOfV5AreReadAsGoflow2ReadsThem: of the fixed versions it has v5.
func TestRecordingsOfV5AreReadAsGoflow2ReadsThem(t *testing.T) {
	captures, _ := filepath.Glob("../../testdata/netflow/*-v5*.pcap")
	compared := 0
	for _, capture := range captures {
		name := filepath.Base(capture)
		if strings.Contains(name, "fragments") || strings.Contains(name, "sll2") {
			continue // datagrams in pieces; the same datagrams as in another file
		}
		from, payloads := datagrams(t, capture)
		ours := netflow.NewDecoder(1)
		for i, b := range payloads {
			var records []flow.Record
			if err := ours.Decode(from[i], b, func(r *flow.Record) { records = append(records, *r) }); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var theirs netflowlegacy.PacketNetFlowV5
			if err := netflowlegacy.DecodeMessageVersion(bytes.NewBuffer(b), &theirs); err != nil {
				t.Fatalf("%s: goflow2: %v", name, err)
			}
			if len(records) != len(theirs.Records) {
				t.Fatalf("%s, datagram %d: %d records, goflow2 has %d", name, i, len(records), len(theirs.Records))
			}
			boot := int64(theirs.UnixSecs)*1000 + int64(theirs.UnixNSecs/1e6) - int64(theirs.SysUptime)
			for j, x := range theirs.Records {
				r := &records[j]
				address := func(a netflowlegacy.IPAddress) netip.Addr {
					return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(a))))
				}
				want := fmt.Sprint(address(x.SrcAddr), address(x.DstAddr), x.SrcPort, x.DstPort, x.Proto, x.Tos, x.TCPFlags, x.DPkts, x.DOctets,
					boot+int64(x.First), boot+int64(x.Last), x.Input, x.Output, x.SrcAS, x.DstAS, theirs.SamplingInterval&0x3fff)
				got := fmt.Sprint(r.SrcAddr(), r.DstAddr(), r.SrcPort, r.DstPort, r.Protocol, r.TOS, r.TCPFlags, r.Packets, r.Bytes,
					r.Start, r.End, r.Ingress, r.Egress, r.SrcAS, r.DstAS, r.Interval)
				if got != want {
					t.Errorf("%s, datagram %d, record %d:\n- goflow2   %s\n+ overflowd %s", name, i, j, want, got)
				}
				compared++
			}
		}
	}
	if compared < 400 {
		t.Errorf("%d records compared", compared)
	}
}
