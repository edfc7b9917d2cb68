// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/source"
)

// maxFlows keeps the table below 1 GB.
const maxFlows = 10_000_000

// maxThin keeps what the kernel makes of 1 in N, which is a multiple of 2^-32,
// within 1/4000 of it.
const maxThin = 1_000_000

func (r *raw) capturing(c *Config) error {
	switch r.frames {
	case "":
	case "export":
		c.Frames = source.Exports
	case "packets":
		c.Frames = source.Packets
	default:
		return fmt.Errorf("--frames %q is neither export nor packets", r.frames)
	}
	if r.frames != "" && r.pcapFile == "" {
		return errors.New("--frames is of the file of --pcapfile")
	}
	c.Conntrack, c.NAT = r.conntrack, r.nat || r.conntrack
	n, err := strconv.ParseUint(r.flows, 10, 32)
	if err != nil || n == 0 || n > maxFlows {
		return fmt.Errorf("--flows %q is not a number from 1 to %d", r.flows, maxFlows)
	}
	c.Flows = int(n)
	if err := r.thinning(c); err != nil {
		return err
	}
	for _, text := range r.interfaces {
		i := source.Interface{Name: text}
		if name, role, ok := strings.Cut(text, ":"); ok {
			i.Name = name
			if i.Role, ok = evidence.ParseRole(role); !ok {
				return fmt.Errorf("--interface %q: the role is neither wan nor lan", text)
			}
		}
		if i.Name == "" || len(i.Name) > 15 || strings.ContainsAny(i.Name, "/ \t\n") {
			return fmt.Errorf("--interface %q is not the name of an interface", text)
		}
		for _, other := range c.Interfaces {
			if other.Name == i.Name {
				return fmt.Errorf("--interface %s is there twice", i.Name)
			}
		}
		c.Interfaces = append(c.Interfaces, i)
		c.NAT = c.NAT || i.Role == source.LAN
	}
	if len(c.Interfaces) > source.MaxInterfaces {
		return fmt.Errorf("--interface is there more than %d times", source.MaxInterfaces)
	}
	return nil
}

func (r *raw) thinning(c *Config) error {
	none := errors.New("--thin is of the packets of --interface")
	if r.thin == "auto" {
		if len(r.interfaces) == 0 {
			return none
		}
		c.Thin, c.ThinAuto = 1, true
		return nil
	}
	n, err := strconv.ParseUint(r.thin, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("--thin %q is neither a number from 1 nor auto", r.thin)
	}
	if most := math.Floor(1/c.Rate + 1e-6); float64(n) > most {
		return fmt.Errorf("--thin %d leaves fewer packets than --rate %s selects: it is at most %.0f", n, r.rate, most)
	}
	if n > maxThin {
		return fmt.Errorf("--thin %d is above %d", n, maxThin)
	}
	c.Thin = uint32(n)
	if n > 1 && len(r.interfaces) == 0 {
		return none
	}
	return nil
}
