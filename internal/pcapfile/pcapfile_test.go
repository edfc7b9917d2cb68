// SPDX-License-Identifier: BSD-3-Clause

package pcapfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/overflowd/overflowd/internal/packet"
)

// readAll reads a file to its end and returns copies of the packets.
func readAll(r io.Reader) (got []Packet, err error) {
	f, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	for {
		var p Packet
		err := f.Next(&p)
		if err == nil || len(p.Data) > 0 {
			p.Data = bytes.Clone(p.Data)
			got = append(got, p)
		}
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

// classicFile writes a pcap file by hand, in any byte order and precision.
func classicFile(order binary.AppendByteOrder, magic uint32, packets []Packet) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = order.AppendUint32(b, 65535)
	b = order.AppendUint32(b, 1)
	unit := int64(1000)
	if magic == 0xa1b23c4d {
		unit = 1
	}
	for _, p := range packets {
		b = order.AppendUint32(b, uint32(p.Time/1e9))
		b = order.AppendUint32(b, uint32(p.Time%1e9/unit))
		b = order.AppendUint32(b, uint32(len(p.Data)))
		b = order.AppendUint32(b, p.Length)
		if magic == 0xa1b2cd34 {
			b = append(b, make([]byte, 8)...)
		}
		b = append(b, p.Data...)
	}
	return b
}

// block writes a pcapng block by hand.
func block(order binary.AppendByteOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := order.AppendUint32(nil, kind)
	b = order.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return order.AppendUint32(b, uint32(len(body)+12))
}

func u32s(order binary.AppendByteOrder, v ...uint32) (b []byte) {
	for _, x := range v {
		b = order.AppendUint32(b, x)
	}
	return b
}

func sectionBlock(order binary.AppendByteOrder) []byte {
	b := order.AppendUint32(nil, 0x1a2b3c4d)
	b = order.AppendUint16(b, 1)
	b = order.AppendUint16(b, 0)
	return block(order, blockSection, append(b, bytes.Repeat([]byte{0xff}, 8)...))
}

func interfaceBlock(order binary.AppendByteOrder, link uint16, snaplen uint32, options ...byte) []byte {
	b := order.AppendUint16(nil, link)
	b = order.AppendUint16(b, 0)
	return block(order, blockInterface, append(order.AppendUint32(b, snaplen), options...))
}

func enhancedBlock(order binary.AppendByteOrder, id uint32, ticks uint64, data string) []byte {
	b := u32s(order, id, uint32(ticks>>32), uint32(ticks), uint32(len(data)), 1500)
	return block(order, blockEnhanced, append(b, data...))
}

// sample has two sections of different byte orders, several interfaces and all
// kinds of blocks, with the packets that are in it.
func sample() (file []byte, want []Packet) {
	le, be := binary.LittleEndian, binary.BigEndian
	option := func(order binary.AppendByteOrder, code uint16, v ...byte) []byte {
		b := order.AppendUint16(nil, code)
		b = order.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
		return append(b, make([]byte, -len(v)&3)...)
	}
	const s = 1_700_000_000
	for _, part := range [][]byte{
		sectionBlock(le),
		interfaceBlock(le, 1, 0),
		interfaceBlock(le, 276, 4, append(option(le, 9, 9), option(le, 14, 60, 0, 0, 0, 0, 0, 0, 0)...)...),
		block(le, 0x0bad, []byte("of no known kind")),
		enhancedBlock(le, 0, s*1e6+5, "micro"),
		enhancedBlock(le, 1, s*1e9+7, "nano"),
		block(le, blockSimple, append(u32s(le, 3), "one"...)),
		sectionBlock(be),
		interfaceBlock(be, 101, 0, option(be, 9, 0x80|10)...),
		interfaceBlock(be, 113, 2),
		enhancedBlock(be, 0, s*1024+512, "binary"),
		block(be, blockPacket, append(be.AppendUint16(be.AppendUint16(nil, 1), 0), append(u32s(be, 0, 1e6, 3, 9), "old"...)...)),
	} {
		file = append(file, part...)
	}
	return file, []Packet{
		{[]byte("micro"), packet.Ethernet, s*1e9 + 5000, 1500},
		{[]byte("nano"), packet.SLL2, (s+60)*1e9 + 7, 1500},
		{[]byte("one"), packet.Ethernet, 0, 3},
		{[]byte("binary"), packet.Raw, s*1e9 + 5e8, 1500},
		{[]byte("old"), packet.LinuxSLL, 1e9, 9},
	}
}

func somePackets() []Packet {
	return []Packet{
		{[]byte("first"), packet.Ethernet, 1_700_000_000_123_456_000, 60},
		{[]byte{}, packet.Ethernet, 1_700_000_001_000_000_000, 0},
		{bytes.Repeat([]byte("x"), 300), packet.Ethernet, 1_700_000_001_999_999_000, 9000},
	}
}

func TestFilesThatAreNoCapturesAreToldApart(t *testing.T) {
	good := classicFile(binary.LittleEndian, 0xa1b2c3d4, somePackets())
	ng, _ := sample()
	le := binary.LittleEndian
	version := bytes.Clone(good)
	version[4] = 3
	for _, c := range []struct {
		name string
		file []byte
		kind error
		want string
	}{
		{"nothing", nil, ErrNotCapture, "it is empty"},
		{"three bytes", []byte{0xd4, 0xc3, 0xb2}, ErrNotCapture, "3 bytes only"},
		{"text", []byte("hello, world"), ErrNotCapture, "68 65 6c 6c"},
		{"gzip", []byte("\x1f\x8b\x08\x00"), ErrNotCapture, "gzip"},
		{"zstd", []byte("\x28\xb5\x2f\xfd"), ErrNotCapture, "zstd"},
		{"nfcapd", []byte("\x0c\xa5\x01\x00"), ErrNotCapture, "nfcapd"},
		{"a header alone that is cut", good[:20], ErrNotCapture, "cut short"},
		{"pcap of version 3", version, ErrNotCapture, "version 3"},
		{"a pcapng section cut", ng[:14], ErrNotCapture, "cut short"},
		{"a pcapng section of no byte order", append(bytes.Clone(ng[:8]), make([]byte, 20)...), ErrNotCapture, "byte-order"},
		{"a packet of 4 GB", append(bytes.Clone(good[:24]), u32s(le, 0, 0, 1<<32-1, 0)...), ErrCorrupt, "byte 24"},
		{"a packet one byte too large", append(bytes.Clone(good[:24]), u32s(le, 0, 0, MaxPacket+1, 0)...), ErrCorrupt, "262145"},
		{"a block of 0 bytes", append(sectionBlock(le), u32s(le, 9, 0, 0)...), ErrCorrupt, "a block of 0"},
		{"a block of 13 bytes", append(sectionBlock(le), u32s(le, 9, 13, 0)...), ErrCorrupt, "a block of 13"},
		{"a packet block of 4 GB", append(sectionBlock(le), u32s(le, 6, 1<<32-4)...), ErrCorrupt, "a block"},
		{"an unknown interface", append(sectionBlock(le), enhancedBlock(le, 0, 0, "x")...), ErrCorrupt, "unknown interface"},
		{"a packet larger than its block", append(append(sectionBlock(le), interfaceBlock(le, 1, 0)...),
			block(le, blockEnhanced, u32s(le, 0, 0, 0, 99, 99))...), ErrCorrupt, "a packet of 99"},
		{"two lengths that differ", append(append(sectionBlock(le), interfaceBlock(le, 1, 0)...),
			u32s(le, 6, 32, 0, 0, 0, 0, 0, 36)...), ErrCorrupt, "two lengths"},
	} {
		if _, err := readAll(bytes.NewReader(c.file)); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestEveryKindOfFileIsRead(t *testing.T) {
	for name, f := range files() {
		for kind, r := range map[string]io.Reader{"at once": bytes.NewReader(f.file), "byte by byte": iotest.OneByteReader(bytes.NewReader(f.file))} {
			got, err := readAll(r)
			if diff := cmp.Diff(f.want, got); err != nil || diff != "" {
				t.Errorf("%s, %s: %v (-want +got):\n%s", name, kind, err, diff)
			}
		}
	}
}

type file struct {
	file []byte
	want []Packet
}

func files() map[string]file {
	all := map[string]file{}
	for order, o := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		for _, magic := range []uint32{0xa1b2c3d4, 0xa1b23c4d, 0xa1b2cd34} {
			all[fmt.Sprintf("pcap %x %s", magic, order)] = file{classicFile(o, magic, somePackets()), somePackets()}
		}
	}
	ng, want := sample()
	all["pcapng"] = file{ng, want}
	return all
}

func TestACutFileIsReadToItsLastWholePacket(t *testing.T) {
	for name, f := range files() {
		for n := 28; n < len(f.file); n++ {
			got, err := readAll(bytes.NewReader(f.file[:n]))
			if err != nil && !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut to %d: %v", name, n, err)
			}
			for i := range got {
				whole := bytes.Equal(got[i].Data, f.want[i].Data) && got[i].Time == f.want[i].Time && got[i].LinkType == f.want[i].LinkType
				part := err != nil && i == len(got)-1 && bytes.HasPrefix(f.want[i].Data, got[i].Data)
				if !whole && !part {
					t.Fatalf("%s cut to %d: packet %d is %+v", name, n, i, got[i])
				}
			}
		}
	}
}

// TestPcapgoAgrees writes files with pcapgo and compares, and reads damaged ones
// with both: what pcapgo reads without an error we must read in the same way.
func TestPcapgoAgrees(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		var classic, next bytes.Buffer
		w := pcapgo.NewWriterNanos(&classic)
		w.WriteFileHeader(65535, layers.LinkTypeEthernet)
		ng, err := pcapgo.NewNgWriter(&next, layers.LinkTypeEthernet)
		if err != nil {
			t.Fatal(err)
		}
		var want []Packet
		for range r.IntN(50) {
			data := make([]byte, r.IntN(3000))
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			at := time.Unix(r.Int64N(1<<31), r.Int64N(1e9))
			ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: len(data) + r.IntN(9)}
			if err := errors.Join(w.WritePacket(ci, data), ng.WritePacket(ci, data)); err != nil {
				t.Fatal(err)
			}
			want = append(want, Packet{data, packet.Ethernet, at.UnixNano(), uint32(ci.Length)})
		}
		ng.Flush()
		for name, b := range map[string][]byte{"pcap": classic.Bytes(), "pcapng": next.Bytes()} {
			got, err := readAll(bytes.NewReader(b))
			if err != nil || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(want, got) {
				t.Fatalf("%s, round %d: %v, what is read differs from what was written", name, round, err)
			}
		}
		b := bytes.Clone(classic.Bytes())
		for range 1 + r.IntN(3) {
			b[24+r.IntN(max(1, len(b)-24))%max(1, len(b)-24)] ^= byte(1 << r.IntN(8))
			if len(b) <= 25 {
				break
			}
		}
		p, err := pcapgo.NewReader(bytes.NewReader(b))
		if err != nil {
			continue
		}
		got, _ := readAll(bytes.NewReader(b))
		for i := 0; ; i++ {
			data, ci, err := p.ReadPacketData()
			if err != nil {
				break // pcapgo refuses more: a length over the snapshot length, say
			}
			if i >= len(got) || !bytes.Equal(got[i].Data, data) || got[i].Length != uint32(ci.Length) {
				t.Fatalf("round %d: damaged file, packet %d differs", round, i)
			}
		}
	}
}

func TestCapturesAreReadAsPcapgoReadsThem(t *testing.T) {
	folder := os.Getenv("OVERFLOWD_CAPTURES")
	if folder == "" {
		folder = "../../testdata/netflow"
	}
	names, _ := filepath.Glob(folder + "/*.pcap")
	if len(names) == 0 {
		t.Fatalf("no captures in %s", folder)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(bytes.NewReader(b))
		p, err := pcapgo.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			data, ci, err := p.ReadPacketData()
			if err != nil {
				break
			}
			if !bytes.Equal(got[n].Data, data) || got[n].Time != ci.Timestamp.UnixNano() {
				t.Fatalf("%s: packet %d differs", name, n)
			}
		}
		if n == 0 || len(got) < n || len(got) > n+1 { // the one more is cut
			t.Errorf("%s: %d packets, pcapgo has %d", name, len(got), n)
		}
	}
}

func TestReadingDoesNotAllocatePerPacket(t *testing.T) {
	var many []Packet
	for range 2000 {
		many = append(many, somePackets()[2])
	}
	f, err := NewReader(bytes.NewReader(classicFile(binary.LittleEndian, 0xa1b2c3d4, many)))
	if err != nil {
		t.Fatal(err)
	}
	var p Packet
	if n := testing.AllocsPerRun(1500, func() {
		if err := f.Next(&p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzReader(f *testing.F) {
	for _, x := range files() {
		f.Add(x.file)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readAll(bytes.NewReader(b))
		total := 0
		for _, p := range got {
			total += len(p.Data)
		}
		if total > len(b) {
			t.Errorf("%d bytes of packets in a file of %d", total, len(b))
		}
		again, err2 := readAll(iotest.OneByteReader(bytes.NewReader(b)))
		if fmt.Sprint(err) != fmt.Sprint(err2) || !cmp.Equal(got, again) {
			t.Errorf("byte by byte it reads otherwise: %v and %v", err, err2)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	many := make([]Packet, 20000)
	for i := range many {
		many[i] = somePackets()[2]
	}
	raw := classicFile(binary.LittleEndian, 0xa1b2c3d4, many)
	var p Packet
	for b.Loop() {
		f, _ := NewReader(bytes.NewReader(raw))
		for f.Next(&p) == nil {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(many)), "ns/packet")
}
