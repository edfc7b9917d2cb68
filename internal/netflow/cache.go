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
	all      bool // stands for all domains of the exporter
}

// everywhere returns the key that stands for all domains of the exporter.
func (k *domainKey) everywhere() domainKey {
	return domainKey{exporter: k.exporter, version: k.version, all: true}
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

// A templateKey is that of RFC 7011, section 8.4, as the collector's address
// and port are the decoder's: the transport session is told by the source port.
// Templates of a domain that had to go are found by nobody, and go too as they
// are not used.
type templateKey struct {
	domain uint64 // its number
	portID uint32 // source port, template identifier
}

// cache holds what exporters said of their data, in memory that is taken once.
// What was not used for the longest time goes first, and nothing goes before
// that: some exporters send a template only once.
type cache struct {
	seed      maphash.Seed
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

// addDomain returns a domain, a new one if there is none.
func (c *cache) addDomain(key *domainKey) *domain {
	slot, outcome := c.domainIDs.Put(*key)
	d := &c.domains[slot]
	if outcome == lru.Found {
		return d
	}
	if outcome == lru.Replaced {
		c.evicted++
	}
	c.numbers++
	*d = domain{number: c.numbers, slot: slot}
	return d
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
		d = c.addDomain(key)
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
