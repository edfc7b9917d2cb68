// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"net/netip"
	"testing"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/tracer"
)

func TestWhoIsNamedForAFlow(t *testing.T) {
	contact := func(n uint32) tracer.Contact { return tracer.Contact{ASN: n} }
	d := &daemon{config: &config.Config{Contact: contact(1), Contacts: []config.ContactFor{
		{Prefix: netip.MustParsePrefix("45.83.1.0/24"), Contact: contact(3)},
		{Prefix: netip.MustParsePrefix("45.83.0.0/16"), Contact: contact(2)},
		{Prefix: netip.MustParsePrefix("91.200.0.0/16"), Contact: contact(4)},
	}}}
	for _, c := range []struct {
		src, dst string
		spoofed  evidence.Answer
		want     uint32
	}{
		{"45.83.1.1", "8.8.8.8", evidence.Unknown, 3},
		{"45.83.2.1", "8.8.8.8", evidence.No, 2},
		{"8.8.8.8", "45.83.1.1", evidence.Unknown, 3},
		{"8.8.8.8", "9.9.9.9", evidence.Unknown, 1},
		{"45.83.1.1", "91.200.1.1", evidence.No, 3},
		{"45.83.1.1", "91.200.1.1", evidence.Yes, 4}, // whose address it is has nothing to do with it
		{"45.83.1.1", "8.8.8.8", evidence.Yes, 1},
	} {
		k := key4(c.src, c.dst)
		if got := d.contactFor(&k, c.spoofed); got != contact(c.want) {
			t.Errorf("%s to %s, spoofed %v: %+v", c.src, c.dst, c.spoofed, got)
		}
	}
}
