// SPDX-License-Identifier: BSD-3-Clause

// Package selector chooses packets: uniform probabilistic sampling in the
// terms of RFC 5475, section 5.2.2.1. Each packet has the same chance p,
// independently of every other and of all that an outsider could know.
//
// Between two chosen packets lies a geometrically distributed gap. It is drawn
// once and counted down, so that a packet, or a record of many, costs one
// comparison and one subtraction until the next hit.
package selector

import (
	"crypto/rand"
	"fmt"
	"math"
	randv2 "math/rand/v2"
)

// A Selector is not safe for concurrent use: each source owns one.
type Selector struct {
	skip   uint64  // packets still to pass before the one that is chosen
	p      float64 // chance of one packet
	scale  float64 // 1/ln(1-p): turns an exponential draw into a gap
	random *randv2.ChaCha8
}

// New returns a selector of chance p, 0 < p <= 1, seeded by the kernel. It
// blocks while the kernel has no randomness to give, as in the first seconds
// after boot.
func New(p float64) (*Selector, error) {
	var seed [32]byte
	rand.Read(seed[:]) // never fails: crypto/rand
	return NewSeeded(p, seed)
}

// NewSeeded returns a selector that anybody who knows the seed can predict: for
// tests and demonstrations.
func NewSeeded(p float64, seed [32]byte) (*Selector, error) {
	s := &Selector{random: randv2.NewChaCha8(seed)}
	return s, s.SetChance(p)
}

// SetChance changes the chance of the packets to come. As a gap has no memory, a
// new one begins.
func (s *Selector) SetChance(p float64) error {
	if !(p > 0 && p <= 1) {
		return fmt.Errorf("rate %v is not a chance above 0 and up to 1", p)
	}
	s.p, s.scale = p, 1/math.Log1p(-p)
	s.skip = s.gap()
	return nil
}

// Take passes n packets by and returns how many of them were chosen: a draw
// from the binomial distribution of n and p. It does not allocate, and its time
// is bounded for every n.
func (s *Selector) Take(n uint64) uint64 {
	if n <= s.skip {
		s.skip -= n
		return 0
	}
	return s.hits(n)
}

// manyHits is the mean number of hits in one record above which they are drawn
// at once. Below it they are drawn one by one.
const manyHits = 32

func (s *Selector) hits(n uint64) uint64 {
	n -= s.skip + 1 // the packets behind the first chosen one
	k := uint64(1)
	if float64(n)*s.p > manyHits {
		// A record may claim any number of packets. Gaps have no memory, so
		// the rest of the record is a binomial draw and a new gap begins.
		k += s.binomial(n)
		s.skip = s.gap()
		return k
	}
	for {
		gap := s.gap()
		if n <= gap {
			s.skip = gap - n
			return k
		}
		n -= gap + 1
		k++
	}
}

// uniform returns a number in (0, 1], a multiple of 2^-53.
func (s *Selector) uniform() float64 {
	return float64(s.random.Uint64()>>11+1) / (1 << 53)
}

// gap draws the number of packets before the next chosen one: it is at least g
// with chance (1-p)^g.
func (s *Selector) gap() uint64 {
	g := math.Log(s.uniform()) * s.scale
	if !(g < 1<<62) { // p below 1e-17
		return 1 << 62
	}
	return uint64(g)
}

// binomial draws the number of chosen packets among n, for n*p > manyHits.
func (s *Selector) binomial(n uint64) uint64 {
	switch {
	case s.p == 1:
		return n
	case s.p > 0.5:
		q := 1 - s.p
		if float64(n)*q > manyHits {
			return n - uint64(s.btrs(float64(n), q))
		}
		// Few are not chosen: count those by their gaps.
		missed, scale := uint64(0), 1/math.Log1p(-q)
		for rest := n; ; missed++ {
			g := math.Log(s.uniform()) * scale
			if g >= float64(rest) {
				return n - missed
			}
			rest -= uint64(g) + 1
		}
	}
	return uint64(s.btrs(float64(n), s.p))
}

// btrs is the transformed rejection algorithm BTRS of W. Hörmann, "The
// generation of binomial random variates", Journal of Statistical Computation
// and Simulation 46 (1993): exact, about 1.2 rounds a draw. It holds for
// n*p >= 10 and p <= 0.5.
func (s *Selector) btrs(n, p float64) float64 {
	sigma := math.Sqrt(n * p * (1 - p))
	b := 1.15 + 2.53*sigma
	a := -0.0873 + 0.0248*b + 0.01*p
	c := n*p + 0.5
	vr := 0.92 - 4.2/b
	alpha := (2.83 + 5.1/b) * sigma
	odds := p / (1 - p)
	m := math.Floor((n + 1) * p)
	h := (m+0.5)*math.Log((m+1)/(odds*(n-m+1))) + stirling(m) + stirling(n-m)
	for {
		u, v := s.uniform()-0.5, s.uniform()
		us := 0.5 - math.Abs(u)
		if us == 0 {
			continue
		}
		k := math.Floor((2*a/us+b)*u + c)
		if k < 0 || k > n {
			continue
		}
		if us >= 0.07 && v <= vr {
			return k
		}
		v = math.Log(v * alpha / (a/(us*us) + b))
		if v <= h+(n+1)*math.Log1p((k-m)/(n-k+1))+
			(k+0.5)*math.Log(odds*(n-k+1)/(k+1))-stirling(k)-stirling(n-k) {
			return k
		}
	}
}

// stirling returns the error of Stirling's approximation of ln k! as Hörmann
// tabulates it: ln k! = (k+1/2)ln(k+1) - (k+1) + ln(2π)/2 + stirling(k). (math's
// Lgamma is 10 kB of a router's flash.)
func stirling(k float64) float64 {
	if k < float64(len(stirlings)) {
		return stirlings[int(k)]
	}
	x := 1 / (k + 1)
	return (1./12 - (1./360-1./1260*x*x)*x*x) * x
}

// stirlings are those of the first k.
var stirlings = [16]float64{
	0.081061466795327261, 0.041340695955409297, 0.027677925684998338, 0.020790672103765093,
	0.016644691189821193, 0.013876128823070748, 0.01189670994589177, 0.010411265261972096,
	0.0092554621827127329, 0.0083305634333628708, 0.0075736754879518406, 0.0069428401072095299,
	0.0064089941880042071, 0.0059513701127588475, 0.0055547335519628011, 0.0052076559196096404,
}
