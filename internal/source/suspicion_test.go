// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"sort"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/selector"
)

// suspecting returns a watch as of an interface, with seeded draws, and its view.
func suspecting(t testing.TB, seed byte, rate, boosted float64, detector *evidence.Detector) (*Watch, *view, chan Hit) {
	hits := make(chan Hit, 4096)
	w := NewWatch(context.Background(), Sink{Hits: hits}, 8192, detector)
	draw, err := NewDraw(rate, boosted, func(p float64) (*selector.Selector, error) {
		seed++
		return selector.NewSeeded(p, [32]byte{seed, 9})
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, &view{link: 1, thin: 1, draw: draw, record: flow.Record{Source: flow.Source{Protocol: flow.Capture}}}, hits
}

// synFrame is an opening of TCP of a source.
func synFrame() []byte {
	f := make([]byte, 60)
	f[12], f[14], f[17], f[22], f[23], f[46], f[47] = 8, 0x45, 40, 60, 6, 0x50, 2
	copy(f[30:], []byte{45, 83, 0, 1})
	f[37] = 25
	return f
}

// TestTheSumOfBothDrawsIsWithoutBias: a flood, and other packets. What the tracers say,
// the sum of k/p with the p that each tells, is as many as there were, within what the
// two draws scatter; and an estimate with another p is not.
func TestTheSumOfBothDrawsIsWithoutBias(t *testing.T) {
	const rate, boosted, runs, packets = 1. / 500, 1. / 20, 60, 20000
	random := rand.New(rand.NewPCG(1, 2))
	sums, wrong, squares := [2]float64{}, 0., [2]float64{}
	var passed [2]float64
	for run := range runs {
		w, v, hits := suspecting(t, byte(2*run), rate, boosted, evidence.NewDetector(evidence.DetectorOptions{Flows: 8192}))
		frame, other := synFrame(), synFrame()
		other[23], other[38], other[39] = 17, 0, 8 // UDP
		var sum [2]float64
		for n := range packets {
			at := 1_790_000_000_000 + int64(n/10)
			if n%2 == 0 {
				binary.BigEndian.PutUint32(frame[26:], random.Uint32())
				w.see(v, frame, 60, at, 0)
			} else {
				w.see(v, other, 60, at, 0)
			}
			for len(hits) > 0 {
				h := <-hits
				if h.Rate != map[bool]float64{true: boosted, false: rate}[h.Suspicion != 0] {
					t.Fatalf("suspicion %v, rate %v", h.Suspicion.Names(), h.Rate)
				}
				i := 0
				if h.Record.Protocol == 6 {
					i = 1
				}
				sum[i] += float64(h.Selected) / h.Rate
				wrong += float64(h.Selected) / rate
			}
		}
		w.flush(v)
		for i := range sum {
			sums[i] += sum[i]
			squares[i] += (sum[i] - packets/2) * (sum[i] - packets/2)
			passed[i] += packets / 2
		}
	}
	for i, p := range []float64{rate, boosted} {
		// The first 127 packets of a flood are not yet suspected.
		variance := runs * (packets/2*(1-p)/p + float64(i)*127*(1/rate-1/p))
		if z := (sums[i] - passed[i]) / math.Sqrt(variance); math.Abs(z) > 4 {
			t.Errorf("class %d: %.0f packets are estimated of %.0f: %.1f standard deviations", i, sums[i], passed[i], z)
		}
		if chi := squares[i] / (variance / runs); chi < runs-4*math.Sqrt(2*runs) || chi > runs+4*math.Sqrt(2*runs) {
			t.Errorf("class %d: chi-square %.0f of %d runs", i, chi, runs)
		}
	}
	all := passed[0] + passed[1]
	if math.Abs(wrong-all) < all {
		t.Errorf("an estimate with the lower rate alone has %.0f of %.0f packets, and should be far off", wrong, all)
	}
}

// TestTheFirstTracerComesSoonerByTheBoost compares how many packets of a flood pass
// until one of it is selected.
func TestTheFirstTracerComesSoonerByTheBoost(t *testing.T) {
	if testing.Short() {
		return
	}
	const rate, boost = 1. / 50_000, 100
	first := func(boosted float64, runs int) float64 {
		random := rand.New(rand.NewPCG(3, 4))
		times := make([]float64, runs)
		for run := range runs {
			// What was learnt in one run is forgotten in the next one.
			w, v, hits := suspecting(t, byte(2*run), rate, boosted, evidence.NewDetector(evidence.DetectorOptions{Flows: 8192}))
			frame := synFrame()
			for n := 0; len(hits) == 0; n++ {
				binary.BigEndian.PutUint32(frame[26:], random.Uint32())
				w.see(v, frame, 60, 1_790_000_000_000+int64(n/100), 0)
				times[run]++
			}
		}
		sum := 0.
		for _, n := range times {
			sum += n
		}
		sort.Float64s(times)
		t.Logf("chance %v: %.0f packets in the mean, %.0f in half of the runs", boosted, sum/float64(runs), times[runs/2])
		return sum / float64(runs)
	}
	const runs = 120
	before, after := first(rate, runs), first(boost*rate, runs)
	// 127 packets pass before a flood is one.
	if want := 1 / (boost * rate); math.Abs(after-want-127) > 4*want/math.Sqrt(runs) {
		t.Errorf("%.0f packets in the mean with the boost, want %.0f", after, want+127)
	}
	if want := 1 / rate; math.Abs(before-want) > 4*want/math.Sqrt(runs) {
		t.Errorf("%.0f packets in the mean without it, want %.0f", before, want)
	}
	t.Logf("the first tracer comes after 1/%.0f of the packets", before/after)
}

// TestWhoAsksForMoreGetsMore: the packets of a flow that is there already have the higher
// chance while its destination asks for it, and only those; it is not suspected.
func TestWhoAsksForMoreGetsMore(t *testing.T) {
	const rate, boosted, packets = 1. / 2000, 1. / 20, 40_000
	wanted := new(atomic.Pointer[prefix.Set])
	d := evidence.NewDetector(evidence.DetectorOptions{Flows: 8192, Wanted: wanted})
	w, v, hits := suspecting(t, 1, rate, boosted, d)
	to, other := synFrame(), synFrame()
	to[23], to[34], to[35], to[38], to[39] = 17, 9, 9, 0, 8
	copy(other, to)
	copy(other[30:], []byte{45, 83, 0, 2})
	n := 0
	pass := func() (k [2]uint64, rates [2]float64) {
		d.Sync()
		for range packets {
			for _, i := range rand.Perm(2) { // one of 16 packets is looked at: not always of the one flow
				f := [][]byte{to, other}[i]
				n++
				w.see(v, f, 60, 1_790_000_000_000+int64(n/10), 0)
			}
			for len(hits) > 0 {
				h := <-hits
				if h.Suspicion.Names() != nil {
					t.Fatalf("suspected: %v", h.Suspicion.Names())
				}
				i := h.Record.Dst[3] - 1
				k[i] += h.Selected
				rates[i] = h.Rate
			}
		}
		return k, rates
	}
	within := func(k uint64, p float64) bool { return math.Abs(float64(k)-packets*p) < 5*math.Sqrt(packets*p) }
	if k, rates := pass(); !within(k[0], rate) || !within(k[1], rate) || rates != [2]float64{rate, rate} {
		t.Errorf("before: %v with %v", k, rates)
	}
	var builder prefix.Builder
	builder.Add(netip.MustParsePrefix("45.83.0.1/32"))
	set := builder.Set()
	wanted.Store(set)
	if k, rates := pass(); !within(k[0], boosted) || !within(k[1], rate) || rates != [2]float64{boosted, rate} {
		t.Errorf("while it asks: %v with %v", k, rates)
	}
	wanted.Store(nil)
	pass() // the first packets until it is noticed
	if k, rates := pass(); !within(k[0], rate) || !within(k[1], rate) || rates != [2]float64{rate, rate} {
		t.Errorf("after: %v with %v", k, rates)
	}
	wanted.Store(set)
	d.Sync()
	r := flow.Record{Key: flow.Key{Protocol: 17, Family: flow.IPv4}, Packets: 1, Known: flow.HasPackets}
	copy(r.Dst[:], []byte{45, 83, 0, 1})
	if s := d.Record(nil, &r, 1, 0); s != evidence.Wanted {
		t.Errorf("a record: %b", s)
	}
	if r.Dst[3] = 2; d.Record(nil, &r, 1, 0) != 0 {
		t.Error("a record to another")
	}
}

func TestTheBoostIsNeverBelowTheRate(t *testing.T) {
	d, err := NewDraw(0.5, 0.1, selector.New)
	if err != nil || d.rates != [2]float64{0.5, 0.5} {
		t.Errorf("%v, %v", d.rates, err)
	}
}

// suspectsList is a list with a few prefixes.
func suspectsList(t testing.TB) *atomic.Pointer[prefix.Set] {
	s, _, err := prefix.ReadList(strings.NewReader("192.0.2.0/24\n198.51.100.0/24\n2001:db8::/32\n"), 10)
	if err != nil {
		t.Fatal(err)
	}
	list := new(atomic.Pointer[prefix.Set])
	list.Store(s)
	return list
}

// benchSuspicion measures a packet from the frame to the selector.
func benchSuspicion(b *testing.B, detector *evidence.Detector, frames [][]byte) time.Duration {
	w, v, hits := suspecting(b, 0, 1e-9, 1e-7, detector)
	w.gather = true
	if detector != nil {
		detector.Sync()
	}
	began := time.Now()
	for n := range b.N {
		f := frames[n%len(frames)]
		w.see(v, f, uint32(len(f)), 1_790_000_000_000+int64(n/1000), 0)
		if n%256 == 0 {
			w.flush(v)
			for len(hits) > 0 {
				<-hits
			}
		}
	}
	return time.Since(began)
}

// BenchmarkSuspicion compares what a packet costs with all of suspicion and without.
func BenchmarkSuspicion(b *testing.B) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, flows := range map[string]int{"5000Flows": 5000, "Flood": 1 << 17} {
		b.Run(name, func(b *testing.B) {
			frames := make([][]byte, 1<<17)
			for i := range frames {
				f := synFrame()
				n := random.Uint32()
				if flows < len(frames) {
					n = uint32(random.IntN(flows))
					f[47] = 16
				}
				binary.BigEndian.PutUint32(f[26:], n)
				frames[i] = f
			}
			off, on := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
			for range 3 {
				off = min(off, benchSuspicion(b, nil, frames))
				on = min(on, benchSuspicion(b, evidence.NewDetector(evidence.DetectorOptions{Flows: 8192, Limit: 100000, List: suspectsList(b)}), frames))
			}
			b.ReportMetric(float64(off)/float64(b.N), "ns/off")
			b.ReportMetric(float64(on)/float64(b.N), "ns/on")
			b.ReportMetric(float64(on)/float64(off), "ratio")
		})
	}
}

// TestTheRateThatIsToldIsThatOfThinnedPackets: of suspected flows no more can be
// selected than are captured.
func TestTheRateThatIsToldIsThatOfThinnedPackets(t *testing.T) {
	for _, thin := range []uint32{1, 50, 10_000, 1_000_000} {
		c := &Capture{Watch: NewWatch(context.Background(), Sink{}, 8, nil), o: Capturing{Rate: 1e-6, Boosted: 1e-3}}
		tap := &tap{}
		var err error
		if tap.in.draw, err = NewDraw(1e-6, 1e-3, selector.New); err != nil {
			t.Fatal(err)
		}
		c.scale(tap, thin)
		if want := min(1e-3, capture.Chance(thin)); tap.out.draw.rates != [2]float64{1e-6, want} || want > 1/float64(thin)*1.01 {
			t.Errorf("1 in %d: %v, want %v", thin, tap.out.draw.rates, want)
		}
	}
}
