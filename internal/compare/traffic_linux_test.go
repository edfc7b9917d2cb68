// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// traffic is a sequence of Ethernet frames, the same in each run. head appends
// the headers of frame i to b, at most maxHead bytes, and returns the length of
// the frame without its check sequence, 60 to 1514 bytes; all that follows the
// headers is zeros. The checksums are right. Not for concurrent use.
type traffic struct {
	head func(i int, b []byte) (head []byte, size int)
	ipv4 func(n int) int // how many of the first n frames are IPv4
}

const (
	maxHead  = 14 + 40 + 20
	maxFrame = 1514
)

func trafficOf(kind string) (traffic, error) {
	switch kind {
	case "mixed":
		return mixed(1), nil
	case "flood":
		return flood(1), nil
	}
	return traffic{}, fmt.Errorf("no traffic %q", kind)
}

// etherTo is of nobody: as on a mirror port, the receiver's kernel captures the
// frame and drops it, so that nothing answers.
var etherTo = [12]byte{0x02, 0, 0, 0, 0, 0x99, 0x02, 0, 0, 0, 0, 1}

// mixed is what a home or an office sees: 4,000 flows of TCP, UDP and ICMP, a
// quarter of them IPv6, a few of which have most of the packets; with bulk
// transfers, their acknowledgements and what lies between. It repeats after
// 32,768 frames.
func mixed(seed uint64) traffic {
	const flows, period = 4000, 1 << 15
	type flow struct {
		head []byte
		ip6  bool
		size [2]int // the least and the greatest
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	be := binary.BigEndian
	var all [flows]flow
	for i := range all {
		f := &all[i]
		protocol, size := byte(6), [][2]int{{60, 60}, {1514, 1514}, {80, 600}}[rng.IntN(3)]
		switch n := rng.IntN(20); {
		case n < 1:
			protocol, size = 1, [2]int{98, 98}
		case n < 7:
			protocol, size = 17, [][2]int{{80, 300}, {1200, 1392}}[rng.IntN(2)]
		}
		f.ip6, f.size = rng.IntN(4) == 0, size
		h := append([]byte(nil), etherTo[:]...)
		if f.ip6 {
			if protocol == 1 {
				protocol = 58
			}
			h = append(h, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 60)
			for _, prefix := range []uint64{0x2600_1234_0000_0000, 0x2a00_5678_0000_0000} {
				h = be.AppendUint64(be.AppendUint64(h, prefix|uint64(rng.Uint32())), rng.Uint64())
			}
		} else {
			h = append(h, 8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 60, protocol, 0, 0)
			for _, prefix := range []uint32{45 << 24, 91 << 24} {
				h = be.AppendUint32(h, prefix|rng.Uint32()>>8)
			}
		}
		from, to := 1024+uint16(rng.IntN(60000)), []uint16{443, 443, 80, 53, 22}[rng.IntN(5)]
		switch protocol {
		case 1:
			h = append(h, 8, 0, 0, 0, 0, 1, 0, 1)
		case 58:
			h = append(h, 128, 0, 0, 0, 0, 1, 0, 1)
		case 6:
			h = be.AppendUint16(be.AppendUint16(h, from), to)
			h = append(h, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, 0x10, 0xff, 0xff, 0, 0, 0, 0)
		case 17:
			h = be.AppendUint16(be.AppendUint16(h, from), to)
			h = append(h, 0, 0, 0, 0)
		}
		f.head = h
	}
	pick := rand.NewZipf(rng, 1.2, 20, flows-1)
	type frame struct {
		head []byte
		size int
	}
	frames, v4 := make([]frame, period), make([]int, period+1)
	for i := range frames {
		f := &all[pick.Uint64()]
		size := f.size[0] + rng.IntN(f.size[1]-f.size[0]+1)
		least := len(f.head) // of an IPv6 acknowledgement, 74
		frames[i] = frame{sized(f.head, max(size, least)), max(size, least)}
		v4[i+1] = v4[i]
		if !f.ip6 {
			v4[i+1]++
		}
	}
	return traffic{func(i int, b []byte) ([]byte, int) {
		f := &frames[i%period]
		return append(b, f.head...), f.size
	}, func(n int) int { return n/period*v4[period] + v4[n%period] }}
}

// sized returns a copy of the headers with the lengths of a frame of size
// bytes, and with the checksums.
func sized(head []byte, size int) []byte {
	h := append(make([]byte, 0, len(head)), head...)
	be := binary.BigEndian
	ip, protocol, pseudo := h[14:], byte(0), uint32(0)
	l4 := ip[20:]
	length := size - 14 - 20
	if h[12] == 8 {
		be.PutUint16(ip[2:], uint16(20+length))
		protocol = ip[9]
		be.PutUint16(ip[10:], checksum(0, ip[:20]))
		pseudo = sum(0, ip[12:20])
	} else {
		l4, length = ip[40:], size-14-40
		be.PutUint16(ip[4:], uint16(length))
		protocol = ip[6]
		pseudo = sum(0, ip[8:40])
	}
	pseudo += uint32(protocol) + uint32(length)
	switch protocol {
	case 1:
		be.PutUint16(l4[2:], checksum(0, l4))
	case 58:
		be.PutUint16(l4[2:], checksum(pseudo, l4))
	case 6:
		be.PutUint16(l4[16:], checksum(pseudo, l4))
	case 17:
		be.PutUint16(l4[4:], uint16(length))
		be.PutUint16(l4[6:], checksum(pseudo, l4))
	}
	return h
}

// sum adds up the 16-bit words of b, of an even length.
func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(b[0])<<8 | uint32(b[1])
	}
	return start
}

func checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	s = s>>16 + s&0xffff
	return ^uint16(s>>16 + s)
}

// flood is a TCP SYN of 60 bytes from a new address in each of the first 2^29
// frames, and from any port.
func flood(seed uint64) traffic {
	h := append([]byte(nil), etherTo[:]...)
	h = append(h, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 60, 6, 0, 0, 0, 0, 0, 0, 91, 200, 16, 2)
	h = append(h, 0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
	h = sized(h, 60)
	be := binary.BigEndian
	ipSum, tcpSum := uint32(^be.Uint16(h[24:])), uint32(^be.Uint16(h[50:]))
	first := rand.New(rand.NewPCG(seed, 0)).Uint32()
	return traffic{func(i int, b []byte) ([]byte, int) {
		at := len(b)
		b = append(b, h...)
		f := b[at:]
		n := (uint32(i) + first) * 0x9e3779b1 // odd, so that none comes twice
		source, port := 32<<24|n&(1<<29-1), 1024|uint16(n>>16)
		be.PutUint32(f[26:], source)
		be.PutUint16(f[34:], port)
		added := source>>16 + source&0xffff
		be.PutUint16(f[24:], checksum(ipSum+added, nil))
		be.PutUint16(f[50:], checksum(tcpSum+added+uint32(port), nil))
		return b, 60
	}, func(n int) int { return n }}
}

// writePcap writes the first n frames as a capture file of Ethernet, the first
// snap bytes of each, 1.2 million a second by its clock.
func writePcap(name string, t traffic, n, snap int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint32(le.AppendUint32(b, uint32(snap)), 1)
	w.Write(b)
	var zeros [maxFrame]byte
	for i := range n {
		at := 1_790_000_000_000_000 + uint64(i)*10/12 // in microseconds
		b = le.AppendUint32(le.AppendUint32(b[:0], uint32(at/1e6)), uint32(at%1e6))
		head, size := t.head(i, append(b, make([]byte, 8)...))
		b = head[:min(len(head), 16+snap)]
		le.PutUint32(b[8:], uint32(min(size, snap)))
		le.PutUint32(b[12:], uint32(size))
		w.Write(b)
		w.Write(zeros[:16+min(size, snap)-len(b)])
	}
	return w.Flush()
}

// TestTrafficIsAsTsharkWouldHaveIt: no malformed headers or checksums, and of
// the flood no source twice.
func TestTrafficIsAsTsharkWouldHaveIt(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	const n = 5000
	for _, kind := range []string{"mixed", "flood"} {
		frames, err := trafficOf(kind)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), kind)
		if err := writePcap(name, frames, n, maxFrame); err != nil {
			t.Fatal(err)
		}
		// What is above UDP and TCP is zeros, and no concern.
		args := []string{"-r", name, "-T", "fields", "-E", "occurrence=f",
			"-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"}
		fields := []string{"ip.version", "ipv6.version", "ip.src", "ipv6.src", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status"}
		for _, f := range fields {
			args = append(args, "-e", f)
		}
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(lines) != n {
			t.Fatalf("%s: %d frames, want %d", kind, len(lines), n)
		}
		v4, sources := 0, map[string]bool{}
		for i, line := range lines {
			f := strings.Split(line, "\t")
			if f[0] == "4" {
				v4++
			}
			sources[f[2]+f[3]] = true
			// 1 is good; IPv6 has no checksum of its own.
			status := strings.Join(f[4:], "")
			if want := map[bool]string{true: "11", false: "1"}[f[0] == "4"]; status != want {
				t.Fatalf("%s: frame %d has %q: checksums %q, want %q", kind, i, line, status, want)
			}
		}
		if want := frames.ipv4(n); v4 != want {
			t.Errorf("%s: %d frames of IPv4, want %d", kind, v4, want)
		}
		if kind == "flood" && len(sources) != n || kind == "mixed" && len(sources) < 1000 {
			t.Errorf("%s: %d sources in %d frames", kind, len(sources), n)
		}
	}
}
