// SPDX-License-Identifier: BSD-3-Clause

package sender

import (
	"net/netip"

	"github.com/overflowd/overflowd/internal/flow"
)

// end of a flow.
type end uint8

const (
	source end = iota
	destination
)

// notice is what one address is to be told as one end of flows. Hits that find
// a bucket empty add up here until the next tracer, so that the sum of what is
// told stays exact.
type notice struct {
	to       netip.Addr
	end      end
	rate     float64     // the chance that all those packets had
	record   flow.Record // of the newest hit
	about    About       // likewise
	selected uint64      // packets of all hits
	held     uint64      // those of them from hits before the newest
	since    uint64      // the number of the hit that made this notice
}

// Packets that were selected with another chance count in a notice of their own: one
// tracer has one rate.
type noticeKey struct {
	to   netip.Addr
	end  end
	rate float64
}

func (n *notice) key() noticeKey { return noticeKey{n.to, n.end, n.rate} }

// maxPending notices of about 350 bytes.
const maxPending = 512

// pending are the notices that wait.
type pending struct {
	notices []*notice // those behind its length are to be used again
	index   map[noticeKey]int
	count   uint64 // hits so far
}

func newPending() pending {
	return pending{index: make(map[noticeKey]int)}
}

// add adds a hit. When the table is full, the notice with the fewest selected
// packets, the newest of them, has to go; its packets are returned as lost.
func (p *pending) add(to netip.Addr, e end, r *flow.Record, about *About, rate float64, selected uint64) (lost uint64) {
	p.count++
	key := noticeKey{to, e, rate}
	if i, ok := p.index[key]; ok {
		n := p.notices[i]
		n.record, n.about, n.held, n.selected = *r, *about, n.selected, n.selected+selected
		return 0
	}
	if len(p.notices) == maxPending {
		least := 0
		for i := range p.notices {
			n, m := p.notices[i], p.notices[least]
			if n.selected < m.selected || n.selected == m.selected && n.since > m.since {
				least = i
			}
		}
		if p.notices[least].selected >= selected {
			return selected
		}
		lost = p.notices[least].selected
		p.remove(least)
	}
	last := len(p.notices)
	p.index[key] = last
	if last < cap(p.notices) {
		p.notices = p.notices[:last+1]
	} else {
		p.notices = append(p.notices, nil)
	}
	if p.notices[last] == nil {
		p.notices[last] = new(notice)
	}
	*p.notices[last] = notice{to: to, end: e, rate: rate, record: *r, about: *about, selected: selected, since: p.count}
	return lost
}

// first returns the index of the notice that is to be sent next, among those
// that may be: the one with the most selected packets, so that the victim of a
// flood is not kept waiting by its thousand forged sources; of equal ones the
// oldest. It returns -1 if there is none.
func (p *pending) first(may func(netip.Addr) bool) int {
	best := -1
	for i := range p.notices {
		n := p.notices[i]
		if best >= 0 {
			m := p.notices[best]
			if n.selected < m.selected || n.selected == m.selected && n.since >= m.since {
				continue
			}
		}
		if may(n.to) {
			best = i
		}
	}
	return best
}

func (p *pending) remove(i int) {
	last := len(p.notices) - 1
	delete(p.index, p.notices[i].key())
	if i != last {
		p.notices[i], p.notices[last] = p.notices[last], p.notices[i]
		p.index[p.notices[i].key()] = i
	}
	p.notices = p.notices[:last]
}
