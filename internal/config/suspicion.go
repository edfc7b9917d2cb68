// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/sender"
)

const (
	maxBoost = 1_000_000
	// maxList keeps a list below 320 MB.
	maxList = 10_000_000
)

func (r *raw) suspecting(c *Config) error {
	if r.boost != "off" {
		n, err := strconv.ParseUint(r.boost, 10, 32)
		if err != nil || n == 0 || n > maxBoost {
			return fmt.Errorf("--boost %q is neither a number from 1 to %d nor off", r.boost, maxBoost)
		}
		ceiling := 1.0
		if c.SendUDP {
			ceiling = sender.MaxRate
		}
		c.Suspect, c.Boosted = true, min(c.Rate*float64(n), ceiling)
		// 100 times 0.000001 is a little below 0.0001, which is what is meant.
		if round, err := strconv.ParseFloat(strconv.FormatFloat(c.Boosted, 'g', 12, 64), 64); err == nil {
			c.Boosted = max(min(round, ceiling), c.Rate)
		}
	}
	n, err := strconv.ParseUint(r.flood, 10, 32)
	if err != nil || n > math.MaxInt32 {
		return fmt.Errorf("--flood %q is not a number from 0 to %d", r.flood, math.MaxInt32)
	}
	c.Flood = uint32(n)
	if n, err = strconv.ParseUint(r.maxSuspects, 10, 32); err != nil || n == 0 || n > maxList {
		return fmt.Errorf("--max-suspects %q is not a number from 1 to %d", r.maxSuspects, maxList)
	}
	c.Suspects, c.MaxSuspects = r.suspects, int(n)
	if r.suspects != "" && !c.Suspect {
		return fmt.Errorf("--suspects %s says nothing with --boost off", r.suspects)
	}
	for _, text := range r.exported {
		of := exported(text)
		if of == nil {
			return fmt.Errorf("--ifindex %q is not as 12:wan, 192.0.2.1=3:lan or 3:lan=198.51.100.0/24,2001:db8::/32", text)
		}
		c.Exported = append(c.Exported, of...)
	}
	return nil
}

// exported reads [EXPORTER=]INDEX:ROLE[=PREFIX,...]; nil if it is something else.
func exported(text string) (all []evidence.ExporterInterface) {
	exporters := []netip.Prefix{everyIPv4, everyIPv6}
	if before, rest, ok := strings.Cut(text, "="); ok {
		if p, err := prefix.Parse(before); err == nil {
			exporters, text = []netip.Prefix{p}, rest
		}
	}
	text, list, listed := strings.Cut(text, "=")
	number, name, ok := strings.Cut(text, ":")
	index, err := strconv.ParseUint(number, 10, 32)
	role, known := evidence.ParseRole(name)
	if !ok || err != nil || !known || listed && role != evidence.LAN {
		return nil
	}
	var prefixes []netip.Prefix
	for _, text := range strings.Split(list, ",") {
		p, err := prefix.Parse(text)
		if listed && err != nil {
			return nil
		}
		if listed {
			prefixes = append(prefixes, p)
		}
	}
	for _, e := range exporters {
		all = append(all, evidence.ExporterInterface{Exporters: e, Index: uint32(index), Role: role, Prefixes: prefixes})
	}
	return all
}
