// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package flowtable

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
)

// pair is a key between two of very many addresses.
func pair(n uint32) flow.Key {
	k := flow.Key{Protocol: 17, Family: flow.IPv4, SrcPort: uint16(n), DstPort: 53}
	k.Src = [16]byte{203, 0, 113, 5}
	binary.BigEndian.PutUint32(k.Dst[:], n)
	return k
}

func TestEndsKnowWhichFlowsBegan(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	e := NewEnds(now)
	table := New(64) // so that most flows have long made room for others
	table.Remember(e)
	const flows = 20_000
	for n := range uint32(flows) {
		p := &Packets{Count: 1, Bytes: 100, Time: now.UnixMilli()}
		p.Key = pair(n)
		table.Add(p)
	}
	wrong := 0
	for n := range uint32(flows) {
		k := pair(n)
		if !e.Know(&k) {
			t.Fatalf("flow %d is not known", n)
		}
		if k.SrcPort, k.DstPort = 1, 2; !e.Know(&k) { // the ports do not count
			t.Fatalf("flow %d is not known by its addresses", n)
		}
		for _, other := range []func(*flow.Key){
			func(k *flow.Key) { k.Src, k.Dst = k.Dst, k.Src },
			func(k *flow.Key) { k.Protocol = 6 },
			func(k *flow.Key) { k.Src[3] = 6 },
			func(k *flow.Key) { k.Dst[0] += 128 },
		} {
			x := k
			if other(&x); e.Know(&x) {
				wrong++
			}
		}
	}
	// Two bits of 2^18 for each pair: (1 - exp(-2n/m))^2 is 2.0 % of 20,000.
	if share := float64(wrong) / (4 * flows); share > 0.03 || share == 0 {
		t.Errorf("%.1f %% of others are known", 100*share)
	}
}

// TestEndsForget: not before a flow that goes on would have begun anew, and then.
func TestEndsForget(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	e := NewEnds(now)
	k := pair(1)
	turn := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			e.Turn(now)
		}
	}
	turn(Active - time.Minute)
	e.add(&k)
	if turn(Active + Idle); !e.Know(&k) {
		t.Error("it was forgotten too early")
	}
	if turn(Active + Idle); e.Know(&k) {
		t.Error("it was never forgotten")
	}
}

func TestEndsDoNotAllocate(t *testing.T) {
	e := NewEnds(time.Now())
	k := pair(7)
	if n := testing.AllocsPerRun(100, func() { e.add(&k); e.Know(&k) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
