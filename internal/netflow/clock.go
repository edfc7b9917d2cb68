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
	if c.knows&knowsNow != 0 && ms > 0 && ms < latest {
		c.uptime = uint32(c.now - ms)
		c.knows |= knowsUptime
	}
}

// A moment is a time as a record tells it.
type moment struct {
	unit  unit
	told  bool
	value uint64
}

// times fills in the start and the end of a record, and returns which of the two
// are told. If they contradict each other, neither is.
func (c *clock) times(r *flow.Record, start, end moment) (known flow.Field) {
	if start.told {
		if ms, ok := c.millis(start.unit, start.value); ok {
			r.Start, known = ms, flow.HasStart
		}
	}
	if end.told {
		if ms, ok := c.millis(end.unit, end.value); ok {
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

// latest is a bound of times that can be, in milliseconds.
const latest = 1 << 53

func (c *clock) millis(u unit, v uint64) (ms int64, ok bool) {
	switch u {
	case seconds:
		return int64(v) * 1000, v != 0 && v < 1<<40
	case millis, timeval: // see timevals
		return int64(v), v != 0 && v < latest
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
		return c.now - int64(v/1000), c.knows&knowsNow != 0 && v < latest
	}
	return 0, false
}
