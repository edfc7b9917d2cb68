// SPDX-License-Identifier: BSD-3-Clause

package selector

import (
	"encoding/binary"
	"fmt"
	"math"
	randv2 "math/rand/v2"
	"testing"
)

func seeded(t testing.TB, p float64, seed uint64) *Selector {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	sel, err := NewSeeded(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func TestRatesThatAreNoChanceAreRefused(t *testing.T) {
	for _, p := range []float64{0, -1, 1.0000001, math.NaN(), math.Inf(1)} {
		if _, err := New(p); err == nil {
			t.Errorf("%v was taken", p)
		}
	}
}

func TestARateOfOneTakesEveryPacket(t *testing.T) {
	s := seeded(t, 1, 1)
	for _, n := range []uint64{0, 1, 2, 1000, 1 << 46, 1<<64 - 1} {
		if k := s.Take(n); k != n {
			t.Errorf("%d of %d", k, n)
		}
	}
}

// binomialPMF returns the chances of 0 to max hits, and of more, by the
// recurrence of the mass function in log space.
func binomialPMF(n float64, p float64, max int) []float64 {
	chances := make([]float64, max+2)
	rest := 1.0
	for k := 0; k <= max; k++ {
		kf := float64(k)
		a, _ := math.Lgamma(n + 1)
		b, _ := math.Lgamma(kf + 1)
		c, _ := math.Lgamma(n - kf + 1)
		if kf <= n {
			lp := a - b - c
			if k > 0 {
				lp += kf * math.Log(p)
			}
			if n-kf > 0 {
				lp += (n - kf) * math.Log1p(-p)
			}
			chances[k] = math.Exp(lp)
		}
		rest -= chances[k]
	}
	chances[max+1] = math.Max(rest, 0)
	return chances
}

// chiSquare compares observed counts with chances, merging thin cells, and
// returns the statistic in standard deviations above its mean.
func chiSquare(observed []int, chances []float64) float64 {
	total := 0
	for _, o := range observed {
		total += o
	}
	x, cells := 0.0, 0.0
	o, e := 0.0, 0.0
	for i := range observed {
		o += float64(observed[i])
		e += chances[i] * float64(total)
		if e >= 8 || i == len(observed)-1 {
			if e > 0 {
				x += (o - e) * (o - e) / e
				cells++
			} else if o > 0 {
				return math.Inf(1)
			}
			o, e = 0, 0
		}
	}
	df := cells - 1
	if df < 1 {
		return 0
	}
	// Wilson and Hilferty: the cube root of chi-square/df is nearly normal.
	return (math.Cbrt(x/df) - (1 - 2/(9*df))) / math.Sqrt(2/(9*df))
}

// laws are ways to pass the same packets by, each with its law of the total.
var laws = []struct {
	name    string
	p       float64
	records []uint64
}{
	{"single packets", 0.01, repeat(1, 200)},
	{"records of a few packets", 0.003, repeat(7, 300)},
	{"records of mixed sizes", 0.02, []uint64{1, 0, 500, 3, 3, 90, 1, 1, 1, 0, 77}},
	{"one large record, hit by hit", 1e-6, []uint64{10_000_000}},
	{"one huge record, drawn at once", 1e-6, []uint64{60_000_000}},
	{"a huge record between small ones", 0.001, []uint64{10, 100_000, 10, 10}},
	{"a large chance", 0.7, repeat(3, 20)},
	{"a large chance over a large record", 0.7, []uint64{300}},
	{"a chance near one over a large record", 0.99, []uint64{700}},
	{"half", 0.5, []uint64{200}},
}

func repeat(n uint64, times int) []uint64 {
	r := make([]uint64, times)
	for i := range r {
		r[i] = n
	}
	return r
}

func TestTheNumberOfSelectedPacketsIsBinomial(t *testing.T) {
	const seeds = 20000
	for i, law := range laws {
		t.Run(law.name, func(t *testing.T) {
			n := uint64(0)
			for _, r := range law.records {
				n += r
			}
			if z := lawDeviation(t, law.p, law.records, n, seeds, uint64(i)<<32); z > 4 {
				t.Errorf("chi-square is %.1f standard deviations above its mean", z)
			}
		})
	}
}

// TestAWrongLawIsNoticed holds the test above to its word: a chance that is off
// by 3 % must not pass it.
func TestAWrongLawIsNoticed(t *testing.T) {
	observed, chances := make([]int, 102), binomialPMF(60_000_000, 1e-6*1.03, 100)
	for seed := range uint64(20000) {
		observed[min(seeded(t, 1e-6, seed).Take(60_000_000), 101)]++
	}
	if z := chiSquare(observed, chances); z < 4 {
		t.Errorf("a chance 3 %% off deviates by %.1f only", z)
	}
}

func lawDeviation(t *testing.T, p float64, records []uint64, n uint64, seeds, offset uint64) float64 {
	max := int(float64(n)*p + 12*math.Sqrt(float64(n)*p+1))
	observed := make([]int, max+2)
	for seed := range seeds {
		s := seeded(t, p, offset+seed)
		k := uint64(0)
		for _, r := range records {
			k += s.Take(r)
		}
		observed[min(k, uint64(max)+1)]++
	}
	return chiSquare(observed, binomialPMF(float64(n), p, max))
}

// TestHitsFallOnEveryPacketAlike: which record is hit must not depend on its
// place nor on what was hit before.
func TestHitsFallOnEveryPacketAlike(t *testing.T) {
	const places, p = 50, 0.05
	hits := make([]int, places)
	pairs := [4]int{}
	for seed := range uint64(20000) {
		s := seeded(t, p, seed)
		last := 0
		for i := range hits {
			k := int(s.Take(1))
			hits[i] += k
			if i == places-1 {
				pairs[2*last+k]++
			}
			last = k
		}
	}
	total := 0
	for _, h := range hits {
		total += h
	}
	chances := make([]float64, places)
	for i := range chances {
		chances[i] = 1.0 / places
	}
	if z := chiSquare(hits, chances); z > 4 {
		t.Errorf("places: %.1f standard deviations", z)
	}
	if z := chiSquare(pairs[:], []float64{0.95 * 0.95, 0.95 * 0.05, 0.05 * 0.95, 0.05 * 0.05}); z > 4 {
		t.Errorf("neighbours: %.1f standard deviations: %v", z, pairs)
	}
}

// TestTheMomentsOfHugeDraws checks mean and variance where the mass function
// can no longer be tabulated: counts that only a forged record can claim.
func TestTheMomentsOfHugeDraws(t *testing.T) {
	for _, c := range []struct {
		n uint64
		p float64
	}{{1 << 32, 0.001}, {1 << 46, 0.001}, {1 << 46, 1e-6}, {1 << 53, 0.3}, {1<<64 - 1, 1e-3}, {1<<64 - 1, 1e-6}} {
		const draws = 4000
		var sum, sum2 float64
		mean := float64(c.n) * c.p
		sigma := math.Sqrt(mean * (1 - c.p))
		for seed := range uint64(draws) {
			z := (float64(seeded(t, c.p, seed).Take(c.n)) - mean) / sigma
			sum += z
			sum2 += z * z
		}
		m := sum / draws * math.Sqrt(draws)
		v := (sum2/draws - 1) * math.Sqrt(draws/2.)
		if math.Abs(m) > 4 || math.Abs(v) > 4 {
			t.Errorf("n=%d p=%v: mean is off by %.1f, variance by %.1f standard errors", c.n, c.p, m, v)
		}
	}
}

func TestTheMeanOverARealExportsRecords(t *testing.T) {
	// As many packets as the records of a 2007 router's export, in records of
	// such sizes.
	const total, seeds, p = 2_862_954, 2000, 1e-5
	r := randv2.New(randv2.NewPCG(1, 2))
	var records []uint64
	for left := uint64(total); left > 0; {
		n := min(left, uint64(1+r.ExpFloat64()*35))
		records = append(records, n)
		left -= n
	}
	k := uint64(0)
	for seed := range uint64(seeds) {
		s := seeded(t, p, seed)
		for _, n := range records {
			k += s.Take(n)
		}
	}
	mean, want := float64(k)/seeds, total*p
	if limit := 4 * math.Sqrt(want/seeds); math.Abs(mean-want) > limit {
		t.Errorf("%.2f packets a run, want %.2f ± %.2f", mean, want, limit)
	}
}

func TestSeedsDecideAndTheKernelsDiffer(t *testing.T) {
	run := func(s *Selector) string {
		text := ""
		for range 20 {
			text += fmt.Sprint(s.Take(1000), " ")
		}
		return text
	}
	if a, b := run(seeded(t, 0.001, 7)), run(seeded(t, 0.001, 7)); a != b {
		t.Errorf("one seed, two selections:\n%s\n%s", a, b)
	}
	a, _ := New(0.001)
	b, _ := New(0.001)
	if run(a) == run(b) {
		t.Error("two selectors of the kernel's seed agree")
	}
}

func TestSelectingDoesNotAllocate(t *testing.T) {
	s := seeded(t, 0.01, 1)
	if allocs := testing.AllocsPerRun(1000, func() { s.Take(50); s.Take(1 << 40) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestTheErrorOfStirlingsApproximation(t *testing.T) {
	for _, k := range []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 100, 1e6} {
		lg, _ := math.Lgamma(k + 1)
		want := lg - (k+0.5)*math.Log(k+1) + (k + 1) - 0.5*math.Log(2*math.Pi)
		if got := stirling(k); math.Abs(got-want) > 2e-12+1e-15*lg {
			t.Errorf("%v: %v, want %v", k, got, want)
		}
	}
}
