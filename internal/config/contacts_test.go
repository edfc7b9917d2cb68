// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/overflowd/overflowd/internal/tracer"
)

func contactsFile(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "contacts")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestContactsOfPrefixes(t *testing.T) {
	c, err := Parse([]string{"-f", "x", "--contacts", contactsFile(t, `
# customers
198.51.100.0/24; email=abuse@customer.example; role=abuse; asn=AS64501
2001:db8:1::/48 ; identity=Bücher & Söhne GmbH ; url=https://customer.example/x?a=b#c;
198.51.100.128/25;asn=64502
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := []ContactFor{
		{netip.MustParsePrefix("2001:db8:1::/48"), tracer.Contact{Identity: "Bücher & Söhne GmbH", URL: "https://customer.example/x?a=b#c"}},
		{netip.MustParsePrefix("198.51.100.128/25"), tracer.Contact{ASN: 64502}},
		{netip.MustParsePrefix("198.51.100.0/24"), tracer.Contact{Email: "abuse@customer.example", Role: "abuse", ASN: 64501}},
	}
	if d := cmp.Diff(want, c.Contacts, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestBadContactsOfPrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"x; asn=1":                                           `line 1: "x"`,
		"192.0.2.0/24":                                       "nobody can be reached",
		"192.0.2.0/24; role=noc":                             "nobody can be reached",
		"#\n192.0.2.0/24; email=x":                           `line 2: email "x"`,
		"192.0.2.0/24; email=a@b.example; role=x":            `role "x"`,
		"192.0.2.0/24; asn=0":                                `asn "0"`,
		"192.0.2.0/24; phone=1":                              `phone=1`,
		"192.0.2.0/24; asn=1; asn=2":                         "each once",
		"192.0.2.0/24; asn=1\n192.0.2.7/24; asn=2":           "192.0.2.0/24 is there twice",
		"192.0.2.0/24; identity=" + strings.Repeat("x", 400): "too long",
	} {
		if _, err := Parse([]string{"-f", "x", "--contacts", contactsFile(t, text)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
}
