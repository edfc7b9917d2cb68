// SPDX-License-Identifier: BSD-3-Clause

package netflow

import "github.com/overflowd/overflowd/internal/flow"

// A clock turns the times of a data record into milliseconds since the Unix
// epoch.
type clock struct {
	now    int64  // when the datagram was exported
	uptime uint32 // at that time, milliseconds
	knows  uint8  // the exporter's clock was set; and its uptime is known
}

const (
	knowsNow uint8 = 1 << iota
	knowsUptime
)

// clock returns that of a datagram and what options said of its domain.
func (d *Decoder) clock(h *header, dom *domain) (c clock) {
	if h.now == 0 {
		return c
	}
	c.now, c.knows = h.now, knowsNow
	if h.key.version == 9 {
		c.uptime = h.uptime
		c.knows |= knowsUptime
	} else if dom.bootTime != 0 {
		c.boot(dom.bootTime)
	}
	return c
}

// boot sets when the exporter was started.
func (c *clock) boot(ms int64) {
	if c.knows&knowsNow != 0 && ms > 0 && ms < 1<<53 {
		c.uptime = uint32(c.now - ms)
		c.knows |= knowsUptime
	}
}

// times fills in the start and the end of a record, and returns which of the two
// are told. If they contradict each other, neither is.
func (c *clock) times(r *flow.Record, startUnit, endUnit unit, hasStart, hasEnd bool, start, end uint64) (known flow.Field) {
	if hasStart && startUnit == uptime && hasEnd && endUnit == uptime && c.knows&knowsUptime != 0 {
		// What most exporters have. The uptime wraps every 49.7 days, and the
		// difference is signed: see fixed.
		r.Start = c.now - int64(int32(c.uptime-uint32(start)))
		r.End = c.now - int64(int32(c.uptime-uint32(end)))
		if r.End < r.Start || r.End > c.now+ahead {
			return 0
		}
		return flow.HasStart | flow.HasEnd
	}
	if hasStart {
		if ms, ok := c.millis(startUnit, start); ok {
			r.Start, known = ms, flow.HasStart
		}
	}
	if hasEnd {
		if ms, ok := c.millis(endUnit, end); ok {
			r.End, known = ms, known|flow.HasEnd
		}
	}
	if known == flow.HasStart|flow.HasEnd && r.End < r.Start {
		return 0
	}
	return known
}

// ntpToUnix are the seconds from the epoch of NTP, 1900, to that of Unix (RFC
// 5905, section 6).
const ntpToUnix = 2_208_988_800

func (c *clock) millis(u unit, v uint64) (ms int64, ok bool) {
	switch u {
	case seconds:
		return int64(v) * 1000, v != 0 && v < 1<<40
	case millis:
		return int64(v), v != 0 && v < 1<<53
	case ntp:
		s := int64(v >> 32)
		if s < ntpToUnix { // of the era that begins in 2036
			s += 1 << 32
		}
		// Exporters round the fraction down: it is that of the nearest microsecond.
		micros := int64((v&0xffffffff*1e6 + 1<<31) >> 32)
		return (s-ntpToUnix)*1000 + micros/1000, v != 0
	case uptime:
		ms = c.now - int64(int32(c.uptime-uint32(v)))
		return ms, c.knows&knowsUptime != 0 && ms <= c.now+ahead
	case deltaMicros:
		return c.now - int64(v/1000), c.knows&knowsNow != 0 && v < 1<<53
	}
	return 0, false
}
