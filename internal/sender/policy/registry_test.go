// SPDX-License-Identifier: BSD-3-Clause

package policy

import (
	"encoding/csv"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
)

// ianaRow is one block of the registries' own CSV files, as IANA publishes
// them at https://www.iana.org/assignments/iana-ipv4-special-registry/ and
// https://www.iana.org/assignments/iana-ipv6-special-registry/.
type ianaRow struct {
	prefix    netip.Prefix
	name      string
	reachable string // True, False, N/A or nothing
}

var footnote = regexp.MustCompile(` ?\[\d+\]`)

func readIANA(t testing.TB) []ianaRow {
	t.Helper()
	var rows []ianaRow
	for _, name := range []string{"testdata/iana-ipv4-special-registry-1.csv", "testdata/iana-ipv6-special-registry-1.csv"} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		records, err := csv.NewReader(f).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if records[0][0] != "Address Block" || records[0][8] != "Globally Reachable" {
			t.Fatalf("%s: not IANA's columns: %q", name, records[0])
		}
		for _, r := range records[1:] {
			for _, block := range strings.Split(footnote.ReplaceAllString(r[0], ""), ", ") {
				rows = append(rows, ianaRow{netip.MustParsePrefix(block), r[1], footnote.ReplaceAllString(r[8], "")})
			}
		}
	}
	if len(rows) != 26+25 {
		t.Fatalf("read %d blocks of the registries, want 26 and 25", len(rows))
	}
	return rows
}

// bitsOf writes an address or the network part of a prefix as 0s and 1s, with
// the IP version before it, so that containment is strings.HasPrefix.
func bitsOf(a netip.Addr, n int) string {
	var s strings.Builder
	for _, b := range a.AsSlice() {
		fmt.Fprintf(&s, "%08b", b)
	}
	return fmt.Sprint(a.BitLen(), ":", s.String()[:n])
}

// oracle knows the same as the policy, from IANA's files and by other means.
type oracle struct {
	bits []string
	rows []ianaRow
}

func newOracle(t testing.TB) *oracle {
	o := &oracle{rows: readIANA(t)}
	for _, r := range o.rows {
		o.bits = append(o.bits, bitsOf(r.prefix.Addr(), r.prefix.Bits()))
	}
	return o
}

func (o *oracle) reachable(a netip.Addr) bool {
	if a.IsMulticast() {
		return false
	}
	all := bitsOf(a, a.BitLen())
	longest, cell := 0, ""
	for i, b := range o.bits {
		if len(b) > longest && strings.HasPrefix(all, b) {
			longest, cell = len(b), o.rows[i].reachable
		}
	}
	b := a.AsSlice()
	switch {
	case longest == 0:
		return a.Is4() || b[0]>>5 == 1
	case cell == "True" && strings.HasPrefix(a.String(), "64:ff9b::"):
		return o.reachable(netip.AddrFrom4([4]byte(b[12:])))
	}
	return cell == "True"
}

func TestRegistryHasEachOfIANAsRowsAndItsReachability(t *testing.T) {
	have := map[netip.Prefix]reach{}
	for _, b := range registry() {
		if b.prefix != b.prefix.Masked() {
			t.Errorf("%v has bits behind its length", b.prefix)
		}
		if _, twice := have[b.prefix]; twice {
			t.Errorf("%v stands there twice", b.prefix)
		}
		have[b.prefix] = b.reach
	}
	for _, row := range readIANA(t) {
		got, ok := have[row.prefix]
		if !ok {
			t.Errorf("%v (%s) is missing", row.prefix, row.name)
			continue
		}
		delete(have, row.prefix)
		var right bool
		switch row.reachable {
		case "True":
			right = got == yes
		case "False":
			right = got == no || got == never
		case "N/A", "":
			right = got == na
		}
		if !right {
			t.Errorf("%v (%s) has reach %d, IANA says %q", row.prefix, row.name, got, row.reachable)
		}
	}
	for prefix, r := range have {
		if r == yes && prefix != netip.MustParsePrefix("0.0.0.0/0") && prefix != netip.MustParsePrefix("2000::/3") {
			t.Errorf("%v is called reachable and IANA does not say so", prefix)
		}
	}
}

// corners returns the addresses at which a block begins and ends, one in its
// middle, and the neighbours of both ends.
func corners(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	last, middle := first.AsSlice(), first.AsSlice()
	for i := p.Bits(); i < first.BitLen(); i++ {
		last[i/8] |= 1 << (7 - i%8)
		if i > p.Bits() {
			middle[i/8] |= 1 << (7 - i%8)
		}
	}
	all := []netip.Addr{first}
	for _, b := range [][]byte{middle, last} {
		a, _ := netip.AddrFromSlice(b)
		all = append(all, a)
	}
	for _, a := range []netip.Addr{first.Prev(), all[2].Next()} {
		if a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

func TestEachBlockIsToldOrNotAsIANASays(t *testing.T) {
	o, p := newOracle(t), New(nil)
	told, not := 0, 0
	for _, row := range append(registry(), block{prefix: netip.MustParsePrefix("128.0.0.0/1")}) {
		for _, a := range corners(row.prefix) {
			want := Verdict{Unreachable, Unreachable}
			if o.reachable(a) {
				want = Verdict{}
				told++
			} else {
				not++
			}
			good := good4
			if a.Is6() {
				good = good6
			}
			k := key(a, good)
			if got := p.Check(&k); got != want {
				t.Errorf("from %v of %v: %v, want %v", a, row.prefix, got, want)
			}
			k = key(good, a)
			if got := p.Check(&k); got != want {
				t.Errorf("to %v of %v: %v, want %v", a, row.prefix, got, want)
			}
		}
	}
	if told < 50 || not < 100 {
		t.Errorf("%d addresses may be told and %d not: the table has lost its point", told, not)
	}
}
