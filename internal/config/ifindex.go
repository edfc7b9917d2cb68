// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/prefix"
)

// exportersInterfaces reads --ifindex.
func (r *raw) exportersInterfaces(c *Config) error {
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
