// SPDX-License-Identifier: BSD-3-Clause

package sflow

import "github.com/overflowd/overflowd/internal/lru"

const (
	// maxSources are remembered of all agents: 256 interfaces.
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
// apart by what they call themselves, as the specification has it.
type source struct {
	agent                          [16]byte
	family, subAgent, class, index uint32
}

// progress is what the last sample of a source said of the sampling. All three
// wrap.
type progress struct {
	sequence uint32 // of the source's samples
	pool     uint32 // packets that could have been sampled
	drops    uint32 // samples that could not be taken
}

// interval is how many packets the sample at hand stands for. That is the
// sampling rate as long as the agent takes all the samples that it wants to.
// Where drops have grown it stands for those that were not taken too: by the
// specification, the pool over the sequence is then the effective rate.
func (d *Decoder) interval(rate uint32, now progress) uint32 {
	slot, outcome := d.table.Put(d.source)
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
