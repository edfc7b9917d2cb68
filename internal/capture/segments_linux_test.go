// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/netns"
	"github.com/overflowd/overflowd/internal/packet"
)

// TestSegmentsAreCountedAsOnTheWire: a router gets what a card or another
// system has put together, and takes it apart on the way out, where each packet
// is seen.
func TestSegmentsAreCountedAsOnTheWire(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	src, dst := pair(t)
	router := netns.New(t)
	src.IP("link del dev a")
	for _, x := range []struct {
		n    *netns.Namespace
		end  string
		addr string
		far  string
	}{{src, "in", "10.0.1", "10.0.2.0/24"}, {dst, "out", "10.0.2", "10.0.1.0/24"}} {
		router.Veth(x.end, x.n, "eth0")
		router.IP("addr add " + x.addr + ".1/24 dev " + x.end)
		x.n.IP("addr add " + x.addr + ".2/24 dev eth0")
		x.n.IP("route add " + x.far + " via " + x.addr + ".1")
	}
	router.Set("ipv4.ip_forward", "1")
	router.IP("link set dev out gso_max_segs 1") // no more than one: the system takes them apart
	in, out := opened(t, router, "in", &Filter{}), opened(t, router, "out", &Filter{})

	var l net.Listener
	if err := dst.Do(func() (err error) { l, err = net.Listen("tcp4", "10.0.2.2:0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const size = 20 << 20
	received := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}()
	sent := src.Go(func() error {
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		b := make([]byte, 100_003)
		for left := size; left > 0; left -= len(b) {
			if _, err := c.Write(b[:min(left, len(b))]); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond) // a ring holds what comes in some 100 ms
		}
		return nil
	})
	type sum struct{ Packets, Bytes uint64 }
	var sums [2]struct{ towards, back sum }
	frames, segmented := [2]int{}, [2]int{}
	read := func() {
		for i, r := range []*Ring{in, out} {
			var f Frame
			for r.Next(&f) {
				var p packet.Packet
				if err := packet.Parse(r.Link(), f.Data, &p); err != nil || p.Protocol != tcp {
					t.Fatalf("%v: %x", err, f.Data)
				}
				packets, bytes := uint32(1), uint64(p.Bytes)
				if f.Segment != 0 {
					segmented[i]++
					if p.Known&flow.HasBytes == 0 {
						p.Bytes += f.Length - uint32(len(f.Data))
					}
					packets, bytes = p.Segments(f.Segment)
				}
				s := &sums[i].towards
				if f.Outgoing != (i == 1) {
					s = &sums[i].back
				}
				s.Packets += uint64(packets)
				s.Bytes += bytes
				if s == &sums[i].towards {
					frames[i]++
				}
			}
		}
	}
	n := int64(-1)
	for end := time.Now().Add(time.Minute); n < 0 && time.Now().Before(end); {
		read()
		select {
		case n = <-received:
		default:
		}
	}
	if err := <-sent; err != nil || n != size {
		t.Fatalf("%v: %d bytes received", err, n)
	}
	for end := time.Now().Add(4 * retire); time.Now().Before(end); {
		read()
	}
	if in.Stats().Dropped+out.Stats().Dropped != 0 {
		t.Fatal("the rings were full")
	}
	t.Logf("in: %+v in %d frames, %d of segments; out: %+v in %d frames, %d of segments", sums[0], frames[0], segmented[0], sums[1], frames[1], segmented[1])
	if segmented[0] == 0 || segmented[1] != 0 || uint64(frames[1]) != sums[1].towards.Packets || frames[0]*2 > frames[1] {
		t.Errorf("%d and %d frames of segments", segmented[0], segmented[1])
	}
	if sums[0] != sums[1] {
		t.Errorf("%+v came in, %+v went out", sums[0], sums[1])
	}
	// The counters of the interface have 14 bytes of Ethernet more a packet, and
	// ARP of 42.
	packets, bytes := dst.Statistic("eth0", "rx_packets"), dst.Statistic("eth0", "rx_bytes")
	if arp := packets - sums[0].towards.Packets; arp > 10 || bytes-14*packets != sums[0].towards.Bytes+28*arp {
		t.Errorf("the receiver counts %d packets, %d bytes", packets, bytes)
	}
}
