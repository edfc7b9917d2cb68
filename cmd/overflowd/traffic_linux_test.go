// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// captureHeader begins a capture file of Ethernet frames.
func captureHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	return append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0)
}

// began is the time of the first frames, in seconds since the Unix epoch.
const began = 0x60000000

// recordHeader is how many bytes of a capture file precede a frame.
const recordHeader = 16

func appendFrame(b, frame []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, began)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	return append(b, frame...)
}

// exportFrame is an export datagram in UDP, IPv4 and Ethernet.
func exportFrame(export []byte) []byte {
	size := len(export)
	frame := make([]byte, 14+20+8, 14+20+8+size)
	frame[12] = 0x08
	ip := frame[14:]
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+size))
	binary.BigEndian.PutUint16(ip[24:], uint16(8+size))
	return append(frame, export...)
}

// frameSize is that of the frames of traffic, the least of Ethernet.
const frameSize = 60

// The classes of traffic are told by the destination's port.
const (
	heavyPort = 443 // one flow of many packets
	otherPort = 80  // other flows
	floodPort = 25  // each packet from another source
)

// segmentFrame is a segment of TCP without data, of a flow of a class.
func segmentFrame(source uint32, sport, dport uint16) []byte {
	frame := make([]byte, frameSize)
	frame[12] = 0x08
	ip := frame[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 20+20, 57, 6
	binary.BigEndian.PutUint32(ip[12:], source)
	copy(ip[16:], []byte{91, 200, 16, 2})
	tcp := ip[20:]
	binary.BigEndian.PutUint16(tcp, sport)
	binary.BigEndian.PutUint16(tcp[2:], dport)
	tcp[12], tcp[13] = 5<<4, 2
	return frame
}

// Traffic is an endless capture, made of one block of frames that is changed
// between its uses.
type traffic struct {
	frames int // of the block
	flood  []int
	source uint32
	b      []byte
}

// newTraffic makes a block of frames, of which each is of the class and flow
// that kind tells.
func newTraffic(frames int, kind func() (port uint16, flow int)) *traffic {
	x := &traffic{frames: frames}
	for range frames {
		port, flow := kind()
		if port == floodPort {
			x.flood = append(x.flood, len(x.b)+recordHeader+14+12)
		}
		x.b = appendFrame(x.b, segmentFrame(45<<24|uint32(flow), uint16(flow), port))
	}
	return x
}

// block returns the next frames of the second since the capture began, valid
// until the next call. No source of the flood comes twice in 2^32 packets.
func (x *traffic) block(second uint32) []byte {
	for _, at := range x.flood {
		x.source++
		binary.BigEndian.PutUint32(x.b[at:], x.source*0x9e3779b1)
	}
	if binary.LittleEndian.Uint32(x.b) != began+second {
		for at := 0; at < len(x.b); at += recordHeader + frameSize {
			binary.LittleEndian.PutUint32(x.b[at:], began+second)
		}
	}
	return x.b
}

// file writes a capture of so many blocks.
func (x *traffic) file(t *testing.T, blocks int) string {
	b := captureHeader()
	for range blocks {
		b = append(b, x.block(0)...)
	}
	return captureFile(t, b)
}

func captureFile(t *testing.T, b []byte) string {
	name := filepath.Join(t.TempDir(), "capture.pcap")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// flood is traffic with a new source in each packet.
func flood() (uint16, int) { return floodPort, 0 }

// mixOf returns traffic of so many flows that come in no order.
func mixOf(flows int) func() (uint16, int) {
	random := rand.New(rand.NewPCG(1, 2))
	return func() (uint16, int) { return otherPort, random.IntN(flows) }
}

// threeClasses is a flow with 30 % of the packets, 1,000 flows with 20 %, and a
// flood with the others.
func threeClasses() func() (uint16, int) {
	random := rand.New(rand.NewPCG(3, 4))
	i := 0
	return func() (uint16, int) {
		i++
		switch i % 10 {
		case 0, 3, 7:
			return heavyPort, 0
		case 1, 5:
			return otherPort, random.IntN(1000)
		}
		return floodPort, 0
	}
}
