// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/tracer"
)

// posting reads how tracers are posted and sealed.
func (r *raw) posting(c *Config) error {
	switch r.trust {
	case "any":
		c.TrustAny = true
	case "strict":
	default:
		return fmt.Errorf("--https-trust %q is neither strict nor any", r.trust)
	}
	if c.TrustAny && !c.SendHTTPS {
		return fmt.Errorf("--https-trust any says nothing without --send https")
	}
	switch r.seal {
	case "", "prefer":
		c.Seal = sender.SealPrefer
	case "never":
	case "require":
		c.Seal = sender.SealRequire
	default:
		return fmt.Errorf("--seal %q is none of never, prefer and require", r.seal)
	}
	if !c.Sends() {
		c.Seal = sender.SealNever
		if r.seal != "" || len(r.sealKeys) > 0 {
			return fmt.Errorf("--seal and --seal-key say nothing without --send: what is printed is not sealed")
		}
		return nil
	}
	for _, text := range r.sealKeys {
		where, key, ok := strings.Cut(text, "=")
		p, err := prefix.Parse(where)
		if !ok || err != nil {
			return fmt.Errorf("--seal-key %q does not begin with an address or a prefix as 192.0.2.0/24=", text)
		}
		k, err := tracer.ParseSealKey(key)
		if err == nil {
			_, err = tracer.Seal(nil, k, nil) // which refuses keys to which nothing can be sealed
		}
		if err != nil {
			return fmt.Errorf("--seal-key %q: not a key as \"overflow-receiver key\" shows it: %w", text, err)
		}
		c.SealKeys = append(c.SealKeys, sender.SealFor{Prefix: p, Key: k})
	}
	slices.SortStableFunc(c.SealKeys, func(a, b sender.SealFor) int { return cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()) })
	if c.Seal == sender.SealNever && len(c.SealKeys) > 0 {
		return fmt.Errorf("--seal-key says nothing with --seal never")
	}
	if c.Seal == sender.SealRequire && (!c.SendHTTPS || c.TrustAny) && len(c.SealKeys) == 0 {
		return fmt.Errorf("--seal require tells nobody without --seal-key, or --send https with certificates that are checked: keys come with the answers to tracers that could be read")
	}
	if c.Seal == sender.SealRequire {
		if over := len(largest(c.Contact)) + tracer.SealOverhead - tracer.MaxMessage; over > 0 {
			return fmt.Errorf("the contact is %d bytes too long for a sealed tracer of %d bytes: shorten --contact-email, --contact-identity or --contact-url",
				over, tracer.MaxDatagram)
		}
	}
	return nil
}
