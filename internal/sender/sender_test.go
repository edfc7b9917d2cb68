// SPDX-License-Identifier: BSD-3-Clause

package sender

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/selector"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/tracer"
)

// wire is a network, an observer of flows and a key in one.
type wire struct {
	*Sender
	observed uint64
	rate     float64
	sent     []delivery
	refuse   error // of the transport
	key      ed25519.PrivateKey
	signed   int
	noKey    error
}

type delivery struct {
	at   time.Time
	to   netip.Addr
	size int
	m    *tracer.Message
}

func newWire(t testing.TB, rate float64, private ...netip.Prefix) *wire {
	w := &wire{rate: rate, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))}
	w.Sender = New(Options{
		Policy: policy.New(private, 7777), Signer: w, Transport: w,
		Observed: func() uint64 { return w.observed },
		Sent:     func(*tracer.Tracer, *tracer.Signed) {},
	})
	return w
}

// offer offers a hit of which nothing else is known.
func (w *wire) offer(r *flow.Record, selected uint64) {
	if err := w.Offer(r, &About{Contact: tracer.Contact{Email: "abuse@example.net"}}, w.rate, selected); err != nil {
		panic(err)
	}
}

func (w *wire) Sign(t *tracer.Tracer) (tracer.Signed, error) {
	if w.noKey != nil {
		return tracer.Signed{}, w.noKey
	}
	w.signed++
	t.Time = time.Now().UnixMilli()
	binary.BigEndian.PutUint64(t.Nonce[:], uint64(w.signed))
	return tracer.Sign(w.key, t.AppendMessage(nil)), nil
}

func (w *wire) Send(to netip.Addr, datagram []byte) error {
	signed, err := tracer.ParseDatagram(datagram)
	if err != nil {
		return err
	}
	m, err := signed.Open()
	if err != nil {
		return err
	}
	w.sent = append(w.sent, delivery{time.Now(), to, len(datagram) + headers(to), m})
	return w.refuse
}

func record(src, dst string) *flow.Record {
	a, b := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	r := &flow.Record{Key: flow.Key{SrcPort: 1, DstPort: 2, Protocol: 17, Family: flow.IPv6}, Known: flow.HasPorts, Packets: 1, Bytes: 1000}
	if a.Is4() {
		r.Family = flow.IPv4
	}
	copy(r.Src[:], a.AsSlice())
	copy(r.Dst[:], b.AsSlice())
	return r
}

// inTime runs f on a clock that shows 2030 and passes at once.
func inTime(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)))
		f(t)
	})
}

func TestARateAboveTheCeilingIsRefused(t *testing.T) {
	for _, rate := range []float64{0, -1, MaxRate * 1.0000001, 1} {
		w := newWire(t, rate)
		if err := w.Offer(record("45.83.0.2", "91.200.16.2"), &About{}, rate, 1); err == nil || w.Waiting() != 0 {
			t.Errorf("%v was taken", rate)
		}
	}
}

func TestBothEndsAreToldEachWithItsOwnTracer(t *testing.T) {
	inTime(t, func(t *testing.T) {
		for _, ends := range [][2]string{{"45.83.0.2", "91.200.16.2"}, {"2600::1", "2a00::1"}} {
			w := newWire(t, 0.001)
			w.observed = 1 << 40
			w.offer(record(ends[0], ends[1]), 3)
			if err := w.Drain(); err != nil {
				t.Fatal(err)
			}
			told := map[string]bool{}
			for _, d := range w.sent {
				told[d.to.String()] = true
				if d.m.To != d.to || d.m.Selected != 3 || d.m.Held != 0 || d.m.Rate != 0.001 || d.m.Flow.SrcAddr().String() != ends[0] {
					t.Errorf("%s got %+v", d.to, d.m)
				}
			}
			if len(w.sent) != 2 || !told[ends[0]] || !told[ends[1]] {
				t.Errorf("told: %v", told)
			}
		}
	})
}

func TestNothingIsSentBeforeTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's clock begins in 2000
		w := newWire(t, 0.001)
		w.observed = 1 << 40
		w.offer(record("45.83.0.2", "91.200.16.2"), 1)
		w.Drain()
		if len(w.sent) != 0 || w.Counters.Unset != 2 {
			t.Errorf("%d sent, %d counted", len(w.sent), w.Counters.Unset)
		}
		time.Sleep(time.Until(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)))
		w.offer(record("45.83.0.2", "91.200.16.2"), 1)
		if w.Drain(); len(w.sent) != 2 {
			t.Errorf("%d sent once it is", len(w.sent))
		}
	})
}

func TestWhatABucketHoldsBackIsAddedToTheNextTracer(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 0.001)
		w.observed = 1 << 40
		total := uint64(0)
		for k := uint64(1); k <= 100; k++ { // 10 s
			w.offer(record(fmt.Sprintf("45.83.0.%d", k), "91.200.16.2"), k)
			w.Drain()
			total += k
			time.Sleep(100 * time.Millisecond)
		}
		for range 20 {
			time.Sleep(time.Second)
			w.Drain()
		}
		sum, last := uint64(0), time.Time{}
		for _, d := range w.sent {
			if d.to.String() != "91.200.16.2" {
				continue
			}
			if !last.IsZero() && d.at.Sub(last) < 3*time.Second {
				t.Errorf("two tracers within %v", d.at.Sub(last))
			}
			last = d.at
			sum += d.m.Selected
			if own := d.m.Selected - d.m.Held; own == 0 || own > 100 {
				t.Errorf("selected %d, held %d", d.m.Selected, d.m.Held)
			}
		}
		if sum != total {
			t.Errorf("%d selected packets were told of %d", sum, total)
		}
	})
}

func TestAFailedSignatureKeepsTheNotice(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 0.001)
		w.observed = 1 << 40
		w.noKey = errors.New("no room on flash")
		w.offer(record("45.83.0.2", "91.200.16.2"), 7)
		if err := w.Drain(); !errors.Is(err, w.noKey) || w.Waiting() != 2 {
			t.Fatalf("%v, %d wait", err, w.Waiting())
		}
		w.noKey = nil
		if err := w.Drain(); err != nil || len(w.sent) != 2 {
			t.Errorf("%v, %d sent", err, len(w.sent))
		}
	})
}

func TestARefusingNetworkIsCountedAndPaidFor(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 0.001)
		w.observed, w.refuse = 1<<40, errors.New("no route to host")
		w.offer(record("45.83.0.2", "91.200.16.2"), 1)
		w.Drain()
		if w.Counters.Failed != 2 || w.Counters.Sent != 0 || w.Counters.SentBytes == 0 || w.Waiting() != 0 {
			t.Errorf("%+v", w.Counters)
		}
	})
}

func TestTheVictimOfAFloodIsNotKeptWaitingByItsSources(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 0.001)
		w.observed = 1 << 40
		r := rand.New(rand.NewPCG(1, 1))
		begin := time.Now()
		for range 3000 { // 30 s of a flood, a new source each time
			w.offer(record(fmt.Sprintf("45.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)), "91.200.16.2"), 1)
			w.Drain()
			time.Sleep(10 * time.Millisecond)
		}
		victim := 0
		for _, d := range w.sent {
			if d.to.String() == "91.200.16.2" {
				if victim++; victim == 1 && d.at.Sub(begin) > time.Second {
					t.Errorf("the first tracer came after %v", d.at.Sub(begin))
				}
			}
		}
		if victim < 10 {
			t.Errorf("the victim got %d tracers in 30 s", victim)
		}
		if w.Counters.Crowded == 0 || len(w.pending.notices) > maxPending || len(w.pending.index) != len(w.pending.notices) {
			t.Errorf("%d packets lost, %d notices", w.Counters.Crowded, len(w.pending.notices))
		}
	})
}

func TestNothingIsSignedInVain(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 0.001)
		w.offer(record("45.83.0.2", "91.200.16.2"), 1)
		for range 1000 {
			w.Drain()
			w.observed += 10
		}
		if w.signed > 1 || len(w.sent) > 0 {
			t.Errorf("signed %d times while 10,000 observed bytes paid for nothing", w.signed)
		}
		w.observed = 1 << 30
		if w.Drain(); len(w.sent) != 2 {
			t.Errorf("%d sent when they did", len(w.sent))
		}
	})
}

// TestNobodyCanMakeUsAnAmplifier is rule 1 of the design as a property: random
// traffic at random rates, small packets and forged counts among it. At no time
// may the bytes sent exceed 1 % of those observed, nor a bucket be overdrawn, nor
// may anything go to an address that is not global.
func TestNobodyCanMakeUsAnAmplifier(t *testing.T) {
	for seed := range uint64(40) {
		inTime(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			rate := MaxRate / float64(1+r.IntN(100))
			w := newWire(t, rate)
			s, err := selector.NewSeeded(rate, [32]byte{byte(seed)})
			if err != nil {
				t.Fatal(err)
			}
			boosted, err := selector.NewSeeded(MaxRate, [32]byte{byte(seed), 1})
			if err != nil {
				t.Fatal(err)
			}
			addr := func() string { // few and many, in few networks and many, IPv4 and IPv6, and forged ones
				switch r.IntN(6) {
				case 0:
					return fmt.Sprintf("91.200.16.%d", r.IntN(4))
				case 1:
					return fmt.Sprintf("91.200.%d.%d", r.IntN(3), r.IntN(256))
				case 2:
					return []string{"10.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "192.168.1.1", "169.254.0.1"}[r.IntN(7)]
				}
				return fmt.Sprintf("%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256))
			}
			seen := 0
			var perAddr = map[netip.Addr]time.Time{}
			var perNet = map[netip.Prefix][]time.Time{}
			for range 4000 {
				rec := record(addr(), addr())
				if r.IntN(4) == 0 {
					rec = record(fmt.Sprintf("2600::%x", r.IntN(9)), fmt.Sprintf("2a00:%x::%x", r.IntN(9), r.IntN(9)))
				}
				rec.Packets = uint64(1 + r.ExpFloat64()*1000)
				rec.Bytes = rec.Packets * uint64(20+r.IntN(60)) // the smallest packets
				if r.IntN(200) == 0 {                           // a forged count: many packets, no bytes
					rec.Packets, rec.Bytes = 1<<32-1, 0
				}
				w.observed += rec.Bytes
				draw := s
				if w.rate = rate; r.IntN(3) == 0 { // a flow that is suspected
					draw, w.rate = boosted, MaxRate
				}
				if k := draw.Take(rec.Packets); k > 0 {
					w.offer(rec, k)
				}
				w.Drain()
				for ; seen < len(w.sent); seen++ {
					d := w.sent[seen]
					total := uint64(0)
					for _, e := range w.sent[:seen+1] {
						total += uint64(e.size)
					}
					if total*100 > w.observed || total > w.Counters.SentBytes {
						t.Fatalf("seed %d: %d bytes sent (counted %d), %d observed", seed, total, w.Counters.SentBytes, w.observed)
					}
					if !d.to.IsGlobalUnicast() || d.to.IsPrivate() {
						t.Fatalf("seed %d: sent to %s", seed, d.to)
					}
					if last, ok := perAddr[d.to]; ok && d.at.Sub(last) < 3*time.Second {
						t.Fatalf("seed %d: %s twice within %v", seed, d.to, d.at.Sub(last))
					}
					perAddr[d.to] = d.at
					n := prefixOf(d.to)
					perNet[n] = append(perNet[n], d.at)
					if h := perNet[n]; len(h) > 4 && h[len(h)-1].Sub(h[len(h)-5]) < time.Second {
						t.Fatalf("seed %d: %s five times within a second", seed, n)
					}
					if seen >= 20 && d.at.Sub(w.sent[seen-20].at) < 100*time.Millisecond {
						t.Fatalf("seed %d: 21 tracers within 100 ms", seed)
					}
				}
				if len(w.limits.destinations) > maxBuckets || len(w.limits.prefixes) > maxBuckets {
					t.Fatalf("seed %d: %d and %d buckets", seed, len(w.limits.destinations), len(w.limits.prefixes))
				}
				time.Sleep(time.Duration(r.ExpFloat64() * float64(20*time.Millisecond)))
			}
			if seen < 10 {
				t.Errorf("seed %d: %d tracers only: nothing is shown", seed, seen)
			}
		})
	}
}

// TestPacketsOfOneTracerHadOneChance: hits that a limit holds back wait for each
// chance on their own, so that the sum of what each tracer says is exact.
func TestPacketsOfOneTracerHadOneChance(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w := newWire(t, 1e-6)
		w.observed = 1 << 40
		want := 0.
		suspicious := &About{Evidence: tracer.Evidence{Suspicion: []string{"syn"}}}
		for i := range uint64(400) {
			about, rate := &About{}, 1e-6
			if i%3 != 0 {
				about, rate = suspicious, 1e-4
			}
			if err := w.Offer(record("45.83.0.2", "91.200.16.2"), about, rate, i); err != nil {
				t.Fatal(err)
			}
			want += float64(i) / rate
			w.Drain()
			time.Sleep(100 * time.Millisecond)
		}
		for w.Waiting() > 0 {
			w.Drain()
			time.Sleep(time.Second)
		}
		for to, got := range map[string]float64{"45.83.0.2": 0, "91.200.16.2": 0} {
			for _, d := range w.sent {
				if d.to.String() == to {
					got += float64(d.m.Selected) / d.m.Rate
				}
				if (d.m.Rate == 1e-4) != (d.m.Class == tracer.Suspicious) || (d.m.Rate == 1e-4) != (len(d.m.Suspicion) == 1) {
					t.Fatalf("a tracer of rate %v is %s, suspicion %v", d.m.Rate, d.m.Class, d.m.Suspicion)
				}
			}
			if math.Abs(got-want) > 1e-6*want {
				t.Errorf("%s was told of %v packets, there were %v", to, got, want)
			}
		}
	})
}

func TestASpoofedSourceIsNotToldThePortsOfTheOtherEnd(t *testing.T) {
	inTime(t, func(t *testing.T) {
		for spoofed, want := range map[string]flow.Field{"yes": 0, "no": flow.HasPorts, "": flow.HasPorts} {
			w := newWire(t, 1e-6)
			w.observed = 1 << 40
			about := &About{Evidence: tracer.Evidence{Spoofed: spoofed}}
			if err := w.Offer(record("45.83.0.2", "91.200.16.2"), about, 1e-6, 1); err != nil {
				t.Fatal(err)
			}
			w.Drain()
			if len(w.sent) != 2 {
				t.Fatalf("%d were sent", len(w.sent))
			}
			for _, d := range w.sent {
				if known := d.m.Flow.Known & flow.HasPorts; d.m.Spoofed != spoofed || d.to.String() == "91.200.16.2" && known == 0 || d.to.String() == "45.83.0.2" && known != want {
					t.Errorf("spoofed %q: %s was told %+v", spoofed, d.to, d.m.Flow)
				}
			}
		}
	})
}
