// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"encoding/binary"
	"net/netip"

	"github.com/overflowd/overflowd/internal/flow"
)

// A NetFlow v9 packet (RFC 3954, section 5) and an IPFIX message (RFC 7011,
// section 3) are a header and sets of template records, options template
// records, or data records, big-endian:
//
//	header           v9  IPFIX     set                both
//	version           0    0       identifier          0
//	count, length     2    2       length, all of it   2
//	uptime, ms        4    -       records             4
//	unix seconds      8    4
//	sequence         12    8
//	domain           16   12
//	length           20   16
//
// v9's count is not looked at: exporters differ in what they count.

// header is what the sets of a datagram have in common. It is kept with those
// that are held back.
type header struct {
	key    domainKey
	port   uint16 // the exporter's
	source flow.Source
	now    int64  // when it was exported, milliseconds since the Unix epoch; 0 if that clock was never set
	uptime uint32 // v9: milliseconds
	// Identifiers of the sets of templates, and whether field types can be
	// those of an enterprise.
	templates, options uint16
	enterprise         bool
}

func (h *header) portID(id uint16) uint32 { return uint32(h.port)<<16 | uint32(id) }

func (d *Decoder) decodeV9(from netip.AddrPort, b []byte, emit func(*flow.Record)) error {
	if len(b) < 20 {
		return ErrShort
	}
	h := header{
		key:    domainKey{exporter: from.Addr().As16(), domain: binary.BigEndian.Uint32(b[16:]), version: 9},
		port:   from.Port(),
		source: flow.Source{Protocol: flow.NetFlow, Version: 9},
		now:    int64(binary.BigEndian.Uint32(b[8:])) * 1000,
		uptime: binary.BigEndian.Uint32(b[4:]),
		// RFC 3954, sections 5.2 and 6.1.
		templates: 0, options: 1,
	}
	return d.sets(&h, b[20:], emit)
}

func (d *Decoder) decodeIPFIX(from netip.AddrPort, b []byte, emit func(*flow.Record)) error {
	if len(b) < 16 {
		return ErrShort
	}
	h := header{
		key:    domainKey{exporter: from.Addr().As16(), domain: binary.BigEndian.Uint32(b[12:]), version: 10},
		port:   from.Port(),
		source: flow.Source{Protocol: flow.IPFIX, Version: 10},
		now:    int64(binary.BigEndian.Uint32(b[4:])) * 1000,
		// RFC 7011, section 3.3.2.
		templates: 2, options: 3,
		enterprise: true,
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 16 {
		return ErrShort
	}
	cut := length > len(b)
	if err := d.sets(&h, b[16:min(length, len(b))], emit); err != nil {
		return err
	}
	if cut {
		return ErrCount
	}
	return nil
}

// sets reads the sets of a datagram.
func (d *Decoder) sets(h *header, b []byte, emit func(*flow.Record)) error {
	learnt := 0
	for len(b) >= 4 {
		id, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 {
			if id == 0 && length == 0 {
				return nil // padding behind the last set
			}
			return ErrSet
		}
		cut := length > len(b)
		body := b[4:min(length, len(b))]
		switch {
		case id >= 256:
			d.dataSet(h, id, body, emit)
		case id == h.templates || id == h.options:
			d.templateSet(h, body, id == h.options, cut, &learnt, emit)
		}
		if cut {
			return ErrSet
		}
		b = b[length:]
	}
	return nil
}

// templateSet reads template records, or options template records.
func (d *Decoder) templateSet(h *header, b []byte, options, cut bool, learnt *int, emit func(*flow.Record)) {
	for len(b) >= 4 {
		id, count := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if id == 0 && count == 0 {
			return // padding
		}
		if h.enterprise && count == 0 {
			// A withdrawal, which over UDP MUST be ignored: RFC 7011, section 8.4.
			b = b[4:]
			continue
		}
		def := definition{options: options, enterprise: h.enterprise, count: count}
		whole := true
		if b = b[4:]; options {
			if whole = len(b) >= 2; whole {
				def.scope = int(binary.BigEndian.Uint16(b))
				b = b[2:]
			}
			if !h.enterprise { // lengths of scope and options, and not counts
				scope, rest := count, def.scope
				whole = whole && scope%4 == 0 && rest%4 == 0
				def.scope, def.count = scope/4, (scope+rest)/4
			} else if def.scope == 0 || def.scope > count {
				whole = false // RFC 7011, section 3.4.2.2
			}
		}
		size := def.length(b)
		if whole = whole && size <= len(b) && id >= 256; whole {
			def.fields = b[:size]
		} else if cut {
			return // what follows is missing, and so may be what makes it whole
		}
		if !d.learn(h, id, &def, whole, learnt, emit) {
			d.Dropped[BadTemplate]++
		}
		b = b[min(size, len(b)):]
	}
}

// length returns the bytes that the fields take, or more than there are.
func (d *definition) length(b []byte) int {
	if !d.enterprise {
		return 4 * d.count
	}
	n := 0
	for range d.count {
		if n+4 > len(b) {
			return len(b) + 1
		}
		if b[n]&0x80 != 0 {
			n += 4
		}
		n += 4
	}
	return n
}

// learn keeps a template and reads the data that were held back for it. It
// returns false if the template is refused, and an older one of its identifier
// is forgotten then.
func (d *Decoder) learn(h *header, id uint16, def *definition, whole bool, learnt *int, emit func(*flow.Record)) bool {
	if *learnt >= d.cache.quota {
		return false // they would only push each other out
	}
	news, good := d.cache.learn(&h.key, h.portID(id), def, whole)
	if news {
		*learnt++
		if good {
			d.replay(h, id, emit)
		}
	}
	return good
}

// dataSet reads data records, or holds them back.
func (d *Decoder) dataSet(h *header, id uint16, b []byte, emit func(*flow.Record)) {
	dom := d.cache.domain(&h.key)
	t := d.cache.template(dom, h.portID(id))
	switch {
	case t == nil:
		d.Dropped[NoTemplate] += d.held.add(h, id, b)
	case t.options:
		d.optionsData(h, dom, t, b)
	case t.packet:
		d.packets(h, dom, t, b, emit)
		d.section = nil // the datagram is not kept
	case !t.flow:
		d.Dropped[NoFlow] += d.skipAll(t, b)
	case !t.counted:
		d.Dropped[NoCount] += d.skipAll(t, b)
	default:
		d.data(h, dom, t, b, emit)
	}
}

// maxWait is how long data wait for their template, in milliseconds: longer than
// most exporters take to send it again. After a restart of the exporter its number
// may mean something else.
const maxWait = 15 * 60 * 1000

// replay reads the data that were held back for a template.
func (d *Decoder) replay(h *header, id uint16, emit func(*flow.Record)) {
	for i := range d.held.sets {
		s := &d.held.sets[i]
		if s.size == 0 || s.id != id || s.header.port != h.port || s.header.key != h.key {
			continue
		}
		b := d.held.take(s)
		waited := h.now - s.header.now
		restarted := int32(h.uptime-s.header.uptime) < -ahead // of IPFIX both are 0
		if waited > maxWait || waited < -maxWait || restarted {
			d.Dropped[NoTemplate]++
			continue
		}
		d.dataSet(&s.header, id, b, emit)
	}
}

// optionsData reads what an exporter says of itself: sampling, and when it was
// started.
func (d *Decoder) optionsData(h *header, dom *domain, t *template, b []byte) {
	if !t.sampled && !t.fields.has(bootTime) {
		return
	}
	for {
		n := d.load(t, b)
		if n == 0 {
			return
		}
		b = b[n:]
		if boot := d.u64(t, bootTime); boot != 0 && boot < 1<<53 {
			dom.bootTime = int64(boot)
		}
		if !t.sampled {
			continue
		}
		s := selector{interval: d.ownInterval(t)}
		switch {
		case t.fields.has(selectorID):
			s.id, s.by = d.u32(t, selectorID), byID
		case t.byInterface:
			s.id, s.by = d.u32(t, ingress), byInterface
		}
		dom.sampling.set(s)
		if s.by == byID && s.interval != 0 {
			// Some exporters announce samplers in another domain than that of
			// the data: there a record finds them by their number.
			d.cache.addExporter(h.key.exporter).samplers.set(s)
		}
	}
}
