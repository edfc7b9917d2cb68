// SPDX-License-Identifier: BSD-3-Clause

package netns

import (
	"encoding/json"
	"fmt"
	"strings"
)

// parse finds a statistic in the JSON of ip(8).
func parse(out []byte, which string) (uint64, error) {
	var links []struct {
		Stats64 map[string]map[string]uint64
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return 0, err
	}
	direction, name, _ := strings.Cut(which, "_")
	if len(links) != 1 {
		return 0, fmt.Errorf("%d links", len(links))
	}
	v, ok := links[0].Stats64[direction][name]
	if !ok {
		return 0, fmt.Errorf("no %s", which)
	}
	return v, nil
}
