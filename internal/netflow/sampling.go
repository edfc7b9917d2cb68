// SPDX-License-Identifier: BSD-3-Clause

package netflow

import "math"

// maxSelectors are the selectors, or interfaces, of one observation domain whose
// intervals are kept. Of more, the oldest goes first.
const maxSelectors = 32

// A selector is what options data said of a sampler: of the one with this
// number, of that of the interface with this number, or of the whole domain.
type selector struct {
	id       uint32 // the lower bits of a longer one
	interval uint32
	by       by
}

type by uint8

const (
	byDomain by = iota
	byID
	byInterface
)

// sampling of an observation domain.
type sampling struct {
	selectors [maxSelectors]selector // the oldest first
	n         int
	// same is the interval of all records, unless that may differ from one to
	// the other.
	same   uint32
	differ bool
}

// varies tells whether records of these fields may have different intervals.
func (s *sampling) varies(fields slotSet) bool {
	return s.differ && fields&(1<<selectorID|1<<ingress) != 0
}

// set keeps what options data said. An interval of 0 says nothing.
func (s *sampling) set(n selector) {
	if n.interval == 0 {
		return
	}
	i := 0
	for i < s.n && (s.selectors[i].id != n.id || s.selectors[i].by != n.by) {
		i++
	}
	if i == maxSelectors {
		copy(s.selectors[:], s.selectors[1:])
		i--
	}
	s.selectors[i] = n
	s.n = max(s.n, i+1)

	s.same, s.differ = n.interval, false
	for _, o := range s.selectors[:s.n] {
		// Not every selector and interface was announced.
		s.differ = s.differ || o.by != byDomain
	}
}

// told is what a record says of its sampling.
type told struct {
	fields            slotSet
	selector, ingress uint32
}

// of returns the interval of a record; 0 if nothing is known.
func (s *sampling) of(r told) uint32 {
	if !s.differ {
		return s.same
	}
	whole, only, ids := uint32(0), uint32(0), 0
	for _, o := range s.selectors[:s.n] {
		switch o.by {
		case byDomain:
			whole = o.interval
		case byInterface:
			if r.fields.has(ingress) && o.id == r.ingress {
				return o.interval
			}
		case byID:
			if r.fields.has(selectorID) && o.id == r.selector {
				return o.interval
			}
			if ids++; ids == 1 || only == o.interval {
				only = o.interval
			} else {
				only = 0 // several, and which one is not said
			}
		}
	}
	switch {
	case whole != 0:
		return whole
	case r.fields.has(selectorID):
		return 0 // one that was not announced, as the 0 of what is not sampled
	}
	return only
}

// ofID returns the interval of a record by the number of its selector alone.
func (s *sampling) ofID(r told) uint32 {
	for _, o := range s.selectors[:s.n] {
		if o.by == byID && o.id == r.selector {
			return o.interval
		}
	}
	return 0
}

// ownInterval computes the sampling interval that a record tells itself (RFC
// 5477, section 8.2); 0 if it does not. Intervals that are no whole numbers are
// rounded.
func (d *Decoder) ownInterval(t *template) uint32 {
	taken := d.u64(t, spacedInterval)
	if taken != 0 && t.fields.has(spacedSpace) {
		// So many packets are taken, and so many left: 1 and 499 are 1 in 500.
		space := d.u64(t, spacedSpace)
		return clamp(space+min(taken, math.MaxUint64-space), taken)
	}
	if size, population := d.u64(t, sampleSize), d.u64(t, samplePopulation); size != 0 && population != 0 {
		return clamp(population, size)
	}
	if t.fields.has(probability) {
		p := math.Float64frombits(d.u64(t, probability))
		if t.single {
			p = float64(math.Float32frombits(uint32(d.u64(t, probability))))
		}
		if !(p > 0 && p <= 1) {
			return 0
		}
		return uint32(min(math.Round(1/p), math.MaxUint32))
	}
	if taken != 0 {
		// Exporters that tell nothing of a space mean the interval itself. Some that
		// tell a population have a 1 here, whatever that is.
		return clamp(taken, 1)
	}
	if n := d.u64(t, interval); n != 0 {
		return clamp(n, 1)
	}
	return clamp(d.u64(t, samplingInterval), 1)
}

// clamp returns n/d, rounded, in 32 bits.
func clamp(n, d uint64) uint32 {
	q := n / d
	if n%d >= d-d/2 {
		q++
	}
	return uint32(min(q, math.MaxUint32))
}
