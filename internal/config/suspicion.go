// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"fmt"
	"math"
	"strconv"

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
		if c.Sends() {
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
	return r.exportersInterfaces(c)
}
