// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/prefix"
)

// Ports of the flow table where packets come in and go out.
const (
	in  flowtable.Port = 0
	out flowtable.Port = 1
)

const (
	trafficSeconds = 20
	trafficBegin   = 1_790_000_000_000
)

// event is a packet of the generated traffic.
type event struct {
	flowtable.Packets
	quoted flow.Key
	attack bool
}

// traffic is made of conversations, as a router between a network and the Internet
// sees them.
type traffic struct {
	random *rand.Rand
	events []event
	attack bool
}

func ipv4(n uint32) (a [16]byte) {
	binary.BigEndian.PutUint32(a[:], n)
	return a
}

const ours = 45<<24 | 83<<16 // our network, 45.83.0.0/16

func (x *traffic) local() [16]byte  { return ipv4(ours + 1 + x.random.Uint32N(300)) }
func (x *traffic) remote() [16]byte { return ipv4(100<<24 + x.random.Uint32N(50<<24)) }
func (x *traffic) port() uint16     { return uint16(32768 + x.random.IntN(28000)) }

func (x *traffic) packet(at int64, where flowtable.Port, k flow.Key, flags uint8, size uint32) {
	e := event{attack: x.attack}
	e.Key, e.Port, e.Count, e.Bytes, e.Time = k, where, 1, uint64(size), trafficBegin+at
	e.Packet.Bytes, e.TCPFlags, e.TTL = size, flags, 60
	e.Known = flow.HasPorts | flow.HasTCPFlags | flow.HasTTL | flow.HasBytes
	x.events = append(x.events, e)
}

func (x *traffic) key(protocol uint8, src, dst [16]byte, sport, dport uint16) flow.Key {
	return flow.Key{Src: src, Dst: dst, SrcPort: sport, DstPort: dport, Protocol: protocol, Family: flow.IPv4}
}

// web is a connection of TCP with n packets of data.
func (x *traffic) web(at int64, from flowtable.Port, client, server [16]byte, port uint16, n int) {
	k := x.key(6, client, server, x.port(), port)
	r, rtt := reverse(&k), 5+x.random.Int64N(200)
	x.packet(at, from, k, syn, 60)
	switch x.random.IntN(100) {
	case 0, 1: // the server is away
		x.packet(at+1000, from, k, syn, 60)
		x.packet(at+3000, from, k, syn, 60)
		return
	case 2: // it refuses
		x.packet(at+rtt, from^1, r, rst|ack, 40)
		return
	}
	x.packet(at+rtt, from^1, r, syn|ack, 60)
	at += rtt + 1
	x.packet(at, from, k, ack, 52)
	for range n {
		at += x.random.Int64N(100)
		x.packet(at, from^1, r, ack|8, 1500)
		if x.random.IntN(2) == 0 {
			x.packet(at+1, from, k, ack, 52)
		}
	}
	x.packet(at+rtt, from, k, ack|fin, 52)
	x.packet(at+2*rtt, from^1, r, ack|fin, 52)
}

// ask is a question of UDP and its answer, which may fail to come.
func (x *traffic) ask(at int64, client, server [16]byte, port uint16, size uint32, lost int) {
	k := x.key(17, client, server, x.port(), port)
	x.packet(at, out, k, 0, 70)
	if x.random.IntN(100) >= lost {
		x.packet(at+5+x.random.Int64N(300), in, reverse(&k), 0, size)
	}
}

// benign adds the traffic of an office of 300 hosts, with a resolver of its own and a
// busy server.
func (x *traffic) benign(packets int) {
	servers := make([][16]byte, 3000)
	for i := range servers {
		servers[i] = x.remote()
	}
	resolver, mailer := ipv4(ours+500), ipv4(ours+501)
	for len(x.events) < packets {
		at := x.random.Int64N(trafficSeconds * 1000)
		switch n := x.random.IntN(1000); {
		case n < 420:
			x.web(at, out, x.local(), servers[int(x.random.ExpFloat64()*400)%len(servers)], 443, int(x.random.ExpFloat64()*40))
		case n < 620: // visitors of ours
			x.web(at, in, x.remote(), mailer, 443, int(x.random.ExpFloat64()*20))
		case n < 780:
			x.ask(at, x.local(), ipv4(8<<24|8<<16|8<<8|8), 53, 80+x.random.Uint32N(1200), 1)
		case n < 900:
			x.ask(at, resolver, servers[x.random.IntN(len(servers))], 53, 80+x.random.Uint32N(1200), 3)
		case n < 920:
			x.ask(at, x.local(), servers[x.random.IntN(20)], 123, 76, 2)
		case n < 990: // QUIC
			k := x.key(17, x.local(), servers[x.random.IntN(len(servers))], x.port(), 443)
			r := reverse(&k)
			for range 10 + x.random.IntN(60) {
				at += x.random.Int64N(60)
				x.packet(at, out, k, 0, 300)
				x.packet(at+3, in, r, 0, 1200)
			}
		case n < 996: // nobody listens there, and an error says so
			k := x.key(17, x.local(), x.remote(), x.port(), 33434)
			x.packet(at, out, k, 0, 60)
			x.packet(at+40, in, x.key(1, k.Dst, k.Src, 0, 3<<8|3), 0, 88)
			x.events[len(x.events)-1].quoted = k
		default: // about a connection that was idle for long
			x.packet(at, in, x.key(6, servers[x.random.IntN(len(servers))], x.local(), 443, x.port()), rst, 40)
		}
	}
}

// attacks, of so many packets each.
var attacks = []struct {
	name   string
	reason Reasons
	share  float64 // of its flows that have to be suspected
	add    func(x *traffic, at int64)
}{
	{"SYN flood, random sources", SYN, 0.75, func(x *traffic, at int64) {
		x.packet(at, in, x.key(6, ipv4(x.random.Uint32()), ipv4(ours+502), uint16(x.random.Uint32()), 25), syn, 40)
	}},
	{"DNS reflection", Reflection, 0.9, func(x *traffic, at int64) {
		x.packet(at, in, x.key(17, ipv4(60<<24+x.random.Uint32N(500)), ipv4(ours+503), 53, x.port()), 0, 1400)
	}},
	{"NTP reflection", Reflection, 0.9, func(x *traffic, at int64) {
		x.packet(at, in, x.key(17, ipv4(61<<24+x.random.Uint32N(5000)), ipv4(ours+503), 123, 80), 0, 468)
	}},
	{"scan of one port", Scan, 0.7, func(x *traffic, at int64) {
		x.packet(at, in, x.key(6, ipv4(62<<24+1), ipv4(ours+x.random.Uint32N(65536)), x.port(), 22), syn, 40)
	}},
	{"scan of one host", Scan, 0.7, func(x *traffic, at int64) {
		x.packet(at, in, x.key(6, ipv4(62<<24+1), ipv4(ours+77), x.port(), uint16(x.random.IntN(65536))), syn, 40)
	}},
	{"scan by UDP", Scan, 0.7, func(x *traffic, at int64) {
		x.packet(at, in, x.key(17, ipv4(62<<24+1), ipv4(ours+x.random.Uint32N(65536)), x.port(), 5060), 0, 60)
	}},
	{"backscatter, SYN-ACK", Backscatter, 0.9, func(x *traffic, at int64) {
		x.packet(at, in, x.key(6, ipv4(63<<24+1), ipv4(ours+x.random.Uint32N(65536)), 80, x.port()), syn|ack, 44)
	}},
	{"backscatter, ICMP errors", Backscatter, 0.9, func(x *traffic, at int64) {
		k := x.key(17, ipv4(ours+505), ipv4(63<<24+1), x.port(), 53)
		x.packet(at, in, x.key(1, ipv4(64<<24+x.random.Uint32N(1<<20)), k.Src, 0, 3<<8|3), 0, 88)
		x.events[len(x.events)-1].quoted = k
	}},
	{"spoofed from the LAN", Spoofed, 1, func(x *traffic, at int64) {
		x.packet(at, out, x.key(17, ipv4(x.random.Uint32()|1<<31), ipv4(70<<24+1), x.port(), 80), 0, 60)
	}},
	{"listed", Listed, 1, func(x *traffic, at int64) {
		x.packet(at, in, x.key(6, ipv4(65<<24+x.random.Uint32N(256)), x.local(), x.port(), 443), syn, 60)
	}},
}

type outcome struct{ attack, attackFlagged, benign, benignFlagged, named int }

// judge takes the traffic through a table and a detector.
func judge(x *traffic, reason Reasons) (o outcome) {
	slices.SortStableFunc(x.events, func(a, b event) int { return int(a.Time - b.Time) })
	var list, served prefix.Builder
	list.Add(netip.MustParsePrefix("65.0.0.0/24"))
	served.Add(netip.MustParsePrefix("45.83.0.0/16"))
	d := NewDetector(DetectorOptions{Flows: 65536, Limit: 100_000, Ways: true})
	d.use(list.Set(), nil)
	// Here the LAN's side is the one where packets go out.
	guard := &Guard{lan: true, allowed: served.Set(), serves4: true}
	table := flowtable.New(65536)
	type flowState struct{ attack, flagged, named bool }
	flows := map[flow.Key]*flowState{}
	for i := range x.events {
		e := &x.events[i]
		entry := table.Add(&e.Packets)
		if Pending(entry.Suspicion) {
			g := guard
			if e.Port == in {
				g = nil
			}
			d.Look(g, table, &e.Packets, entry, &e.quoted, false)
		}
		if i%SampleRate == 0 {
			d.Sample(&e.Packets, entry, 1)
		}
		f := flows[e.Key]
		if f == nil {
			f = &flowState{attack: e.attack}
			flows[e.Key] = f
		}
		if r := Of(entry.Suspicion); r != 0 {
			f.flagged = true
			f.named = f.named || r&reason != 0
		}
	}
	for _, f := range flows {
		switch {
		case f.attack:
			o.attack++
			o.attackFlagged += one(f.flagged)
			o.named += one(f.named)
		default:
			o.benign++
			o.benignFlagged += one(f.flagged)
		}
	}
	return o
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mixed runs each attack, of 1,000 packets, in so many of benign traffic.
func mixed(packets int, f func(i int, o outcome)) {
	for i, a := range attacks {
		x := &traffic{random: rand.New(rand.NewPCG(uint64(i), 7))}
		x.benign(packets)
		x.attack = true
		for range 1000 {
			// Once the detector has been there for a while.
			a.add(x, warmUp+1000+x.random.Int64N(trafficSeconds*1000-warmUp-1000))
		}
		f(i, judge(x, a.reason))
	}
}

func TestAttacksAreToldFromWhatIsBenign(t *testing.T) {
	if testing.Short() {
		return
	}
	mixed(120_000, func(i int, o outcome) { // the benchmark has more
		a := attacks[i]
		if share := float64(o.named) / float64(o.attack); share < a.share {
			t.Errorf("%s: of %d flows %.3f are suspected for it, at least %v have to be", a.name, o.attack, share, a.share)
		}
		if share := float64(o.benignFlagged) / float64(o.benign); share > 0.002 || o.benign < 3000 {
			t.Errorf("%s: of %d benign flows %.5f are suspected", a.name, o.benign, share)
		}
	})
}

// BenchmarkSuspicion prints which share of the flows is suspected.
func BenchmarkSuspicion(b *testing.B) {
	var table strings.Builder
	for b.Loop() {
		table.Reset()
		fmt.Fprintf(&table, "\n%-27s %14s %14s %14s\n", "1 of 1,000 packets is of", "attack flows", "suspected", "benign ones")
		mixed(1_000_000, func(i int, o outcome) {
			fmt.Fprintf(&table, "%-27s %14d %13.2f%% %13.4f%%\n", attacks[i].name, o.attack,
				100*float64(o.attackFlagged)/float64(o.attack), 100*float64(o.benignFlagged)/float64(o.benign))
		})
	}
	fmt.Print(table.String()) // a log would be cut
}
