// SPDX-License-Identifier: BSD-3-Clause

package netflow

import (
	"hash/maphash"

	"github.com/overflowd/overflowd/internal/lru"
)

// templatesPerDomain is how many templates there is room for, for each
// observation domain that there is room for. Exporters have 2 to 20.
const templatesPerDomain = 8

// minDomains of which the one at hand is never the oldest.
const minDomains = 4

// minQuota is the least number of templates that one domain may have. It may have
// half of all. Open vSwitch has 90.
const minQuota = 128

// A domainKey names an observation domain of an exporter. Sampling is known by
// it, as options can come from another port than the data they are about.
type domainKey struct {
	exporter [16]byte // IPv4 addresses mapped into IPv6
	domain   uint32
	version  uint8
}

// whole returns the key of domain 0, which stands for the whole exporter: RFC
// 7011, section 3.1.
func (k *domainKey) whole() domainKey {
	return domainKey{exporter: k.exporter, version: k.version}
}

// A domain is what is known of an observation domain.
type domain struct {
	number    uint64 // of this domain alone, for its templates' keys; from 1
	slot      int
	templates int
	bootTime  int64 // systemInitTimeMilliseconds (160), 0 if not told
	sampling  sampling
}

// An exporter is what is known of all domains of one.
type exporter struct {
	domains  int
	samplers sampling // those that were announced by a number, in whatever domain
}

// A templateKey is that of RFC 7011, section 8.4, as the collector's address
// and port are the decoder's: the transport session is told by the source port.
type templateKey struct {
	domain uint64 // its number
	portID uint32 // source port, template identifier
}

// cache holds what exporters said of their data, in memory that is taken once.
// What was not used for the longest time goes first, and nothing goes before
// that: some exporters send a template only once.
type cache struct {
	seed      maphash.Seed
	addresses *lru.Table[[16]byte]
	exporters []exporter
	domainIDs *lru.Table[domainKey]
	domains   []domain
	ids       *lru.Table[templateKey]
	templates []template
	numbers   uint64 // of domains so far
	quota     int    // templates of one domain
	evicted   uint64 // domains and templates that went to make room
}

func newCache(domains int) cache {
	templates := max(domains*templatesPerDomain, 2*minQuota)
	c := cache{
		seed:      maphash.MakeSeed(),
		addresses: lru.New[[16]byte](domains),
		exporters: make([]exporter, domains),
		domainIDs: lru.New[domainKey](domains),
		domains:   make([]domain, domains),
		ids:       lru.New[templateKey](templates),
		templates: make([]template, templates),
		quota:     templates / 2,
	}
	// The pages are taken now: what strangers send later must not make the
	// program grow.
	for i := range c.templates {
		c.templates[i].slot = -1
		c.templates[i].ops[maxOps-1].size = skip
	}
	return c
}

// domain returns what is known of a domain, nil if nothing is. It stays valid
// until the next call of addDomain.
func (c *cache) domain(key *domainKey) *domain {
	slot, ok := c.domainIDs.Find(*key)
	if !ok {
		return nil
	}
	return &c.domains[slot]
}

// exporter returns what is known of an exporter, nil if nothing is.
func (c *cache) exporter(address [16]byte) *exporter {
	slot, ok := c.addresses.Find(address)
	if !ok {
		return nil
	}
	return &c.exporters[slot]
}

// addExporter returns an exporter, a new one if there is none.
func (c *cache) addExporter(address [16]byte) *exporter {
	slot, outcome := c.addresses.Put(address)
	if outcome != lru.Found {
		c.exporters[slot] = exporter{}
	}
	return &c.exporters[slot]
}

// addDomain returns a new domain of a key that has none. When there is no room
// left, an exporter that has half of all gives up one of its own, so that it does
// not push out those of the others.
func (c *cache) addDomain(key *domainKey) *domain {
	x := c.addExporter(key.exporter)
	if c.domainIDs.Len() == len(c.domains) {
		own := x.domains >= len(c.domains)/2
		for slot := range c.domainIDs.FromOldest() {
			if !own || c.domainIDs.Key(slot).exporter == key.exporter {
				c.forgetDomain(slot)
				break
			}
		}
	}
	slot, _ := c.domainIDs.Put(*key)
	x.domains++
	c.numbers++
	d := &c.domains[slot]
	*d = domain{number: c.numbers, slot: slot}
	return d
}

// forgetDomain removes a domain, and its templates, to make room.
func (c *cache) forgetDomain(slot int) {
	d := &c.domains[slot]
	for of := range c.ids.FromOldest() {
		if d.templates == 0 {
			break
		}
		if c.ids.Key(of).domain == d.number {
			c.forget(of)
		}
	}
	if x := c.exporter(c.domainIDs.Key(slot).exporter); x != nil {
		x.domains--
	}
	c.domainIDs.Remove(slot)
	d.number = 0
	c.evicted++
}

// template returns a template, nil if there is none.
func (c *cache) template(d *domain, portID uint32) *template {
	if d == nil {
		return nil
	}
	slot, ok := c.ids.Find(templateKey{d.number, portID})
	if !ok {
		return nil
	}
	return &c.templates[slot]
}

// learn keeps a template, in the place of an older one of the same key. It tells
// whether the template is news, and whether it is good: a bad definition, or one
// that is not whole, removes what was there.
func (c *cache) learn(key *domainKey, portID uint32, def *definition, whole bool) (news, good bool) {
	d := c.domain(key)
	slot, known := 0, false
	if d != nil {
		slot, known = c.ids.Find(templateKey{d.number, portID})
	}
	hash := uint64(0)
	if whole {
		hash = maphash.Bytes(c.seed, def.fields)
		if def.options {
			hash ^= uint64(def.scope) + 1
		}
		if known && c.templates[slot].definition == hash {
			return false, true
		}
	}
	var t template
	if !whole || !def.compile(&t) {
		if known {
			c.forget(slot)
		}
		return known, false
	}
	if !known {
		if d == nil {
			d = c.addDomain(key)
		}
		if d.templates >= c.quota {
			c.forgetOldest(d)
		}
		var outcome lru.Outcome
		if slot, outcome = c.ids.Put(templateKey{d.number, portID}); outcome == lru.Replaced {
			c.evicted++
			c.disown(&c.templates[slot])
		}
		d.templates++
	}
	t.definition, t.domain, t.slot = hash, d.number, d.slot
	c.templates[slot] = t
	return true, true
}

// forget removes a template.
func (c *cache) forget(slot int) {
	c.ids.Remove(slot)
	c.disown(&c.templates[slot])
}

// disown counts a template off its domain, if that is still there.
func (c *cache) disown(t *template) {
	if d := &c.domains[t.slot]; d.number == t.domain {
		d.templates--
	}
}

// forgetOldest removes the template of a domain that was not used for the
// longest time.
func (c *cache) forgetOldest(d *domain) {
	for slot := range c.ids.FromOldest() {
		if c.templates[slot].domain == d.number {
			c.forget(slot)
			c.evicted++
			return
		}
	}
}
