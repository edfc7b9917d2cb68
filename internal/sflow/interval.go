// SPDX-License-Identifier: BSD-3-Clause

package sflow

import "github.com/overflowd/overflowd/internal/lru"

const (
	// maxSources are remembered of all agents: interfaces, mostly. A slot of theirs
	// fits into a byte.
	maxSources = 256
	// maxReorder is how far a sample may be late, in samples of its source. An
	// agent whose sequence falls back farther has started anew.
	maxReorder = 64
	// maxStep is how far a sequence may advance from one sample that arrives to
	// the next, so that what lies between still tells the rate.
	maxStep = 1 << 16
	// maxFactor is how much more than the agent's sampling rate is believed.
	maxFactor = 1000
	// maxIndex of an interface (RFC 2863, InterfaceIndex).
	maxIndex = 1<<31 - 1
)

// source is where an agent samples: an interface, mostly. The agents are told
// apart by what they call themselves, as the specification has it. Four words are
// passed in registers where there are as many, an array is copied through memory.
type source struct {
	high, low uint64 // agent address; IPv4 in low
	agent     uint64 // its type, and the sub-agent
	id        uint64 // class and index
}

// progress is what the last sample of a source said of the sampling. All three
// wrap.
type progress struct {
	sequence uint32 // of the source's samples
	pool     uint32 // packets that could have been sampled
	drops    uint32 // samples that could not be taken
}

// find returns the slot of the source at hand. Most are where they were: to hash
// each took a quarter of the time of its sample.
func (d *Decoder) find() (slot int, outcome lru.Outcome) {
	hint := &d.hints[uint8(d.source.id+53*d.source.low)]
	if slot := int(*hint); d.table.Holds(slot, d.source) {
		return slot, lru.Found
	}
	slot, outcome = d.table.Put(d.source)
	*hint = uint8(slot)
	return slot, outcome
}

// interval is how many packets the sample at hand stands for. That is the
// sampling rate as long as the agent takes all the samples that it wants to.
// Where drops have grown it stands for those that were not taken too: by the
// specification, the pool over the sequence is then the effective rate.
func (d *Decoder) interval(rate uint32, now progress) uint32 {
	slot, outcome := d.find()
	last := d.last[slot]
	step := now.sequence - last.sequence
	if outcome == lru.Found && -step < maxReorder { // late, or the same again
		return rate
	}
	d.last[slot] = now
	drops := now.drops - last.drops
	if outcome != lru.Found || int32(step) < 0 || int32(drops) <= 0 {
		return rate
	}
	d.Stats.Drops += uint64(drops)
	pool := now.pool - last.pool
	if step > maxStep || int32(pool) <= 0 {
		return rate
	}
	effective := (pool + step/2) / step
	if effective < rate || uint64(effective) > maxFactor*uint64(rate) {
		return rate
	}
	return effective
}
