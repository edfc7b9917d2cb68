// SPDX-License-Identifier: BSD-3-Clause

package evidence

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/sender/policy"
)

// key is of UDP.
func key(src, dst string) flow.Key {
	k := flow.Key{Protocol: 17, Family: flow.IPv6}
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	copy(k.Src[:], s.Addr().AsSlice())
	copy(k.Dst[:], d.Addr().AsSlice())
	if s.Addr().Is4() {
		k.Family = flow.IPv4
	}
	k.SrcPort, k.DstPort = s.Port(), d.Port()
	return k
}

func TestPrivateEndsAreReplaced(t *testing.T) {
	// An inner host that asks, and one that a port is forwarded to.
	masqueraded := conntrack.Entry{Original: key("10.0.0.2:1000", "91.200.16.2:53"), Reply: key("91.200.16.2:53", "45.83.0.1:20000")}
	forwarded := conntrack.Entry{Original: key("91.200.16.2:2000", "45.83.0.1:80"), Reply: key("10.0.0.3:8080", "91.200.16.2:2000")}
	hairpin := conntrack.Entry{Original: key("10.0.0.2:1000", "45.83.0.1:80"), Reply: key("10.0.0.3:8080", "45.83.0.1:20001")}
	v6 := conntrack.Entry{Original: key("[fd00::2]:1000", "[2a00::2]:53"), Reply: key("[2a00::2]:53", "[2600::1]:20000")}
	private := conntrack.Entry{Original: key("10.0.0.2:1000", "10.9.0.2:53"), Reply: key("10.9.0.2:53", "10.0.0.2:1000")}
	const both = flow.HasTranslatedSrc | flow.HasTranslatedDst | flow.HasTranslatedPorts
	record := func(k, translated flow.Key, known flow.Field) flow.Record {
		return flow.Record{Key: k, Known: known | flow.HasPorts, TranslatedSrc: translated.Src, TranslatedDst: translated.Dst,
			TranslatedSrcPort: translated.SrcPort, TranslatedDstPort: translated.DstPort}
	}
	for name, c := range map[string]struct {
		record flow.Record
		entry  conntrack.Entry // of the look-up, if it has a key
		want   flow.Key
		count  NATCounters
	}{
		"public ends are left": {record: record(key("45.83.0.9:1", "91.200.16.2:2"), key("45.83.0.10:1", "91.200.16.3:2"), both),
			want: key("45.83.0.9:1", "91.200.16.2:2")},
		"out, as the exporter says": {record: record(key("10.0.0.2:1000", "91.200.16.2:53"), key("45.83.0.1:20000", "91.200.16.2:53"), both),
			want: key("45.83.0.1:20000", "91.200.16.2:53"), count: NATCounters{Translated: 1}},
		"back, as the exporter says": {record: record(key("91.200.16.2:53", "45.83.0.1:20000"), key("91.200.16.2:53", "10.0.0.2:1000"), both),
			want: key("91.200.16.2:53", "45.83.0.1:20000")},
		"the exporter says the source only": {record: record(key("10.0.0.2:1000", "91.200.16.2:53"), key("45.83.0.1:9", "10.7.7.7:9"), flow.HasTranslatedSrc),
			want: key("45.83.0.1:1000", "91.200.16.2:53"), count: NATCounters{Translated: 1}},
		"the exporter says one that is private too": {record: record(key("10.0.0.2:1000", "91.200.16.2:53"), key("100.64.0.1:9", "91.200.16.2:53"), both),
			want: key("10.0.0.2:1000", "91.200.16.2:53"), count: NATCounters{Unknown: 1}},
		"out, within":        {record: flow.Record{Key: masqueraded.Original}, entry: masqueraded, want: key("45.83.0.1:20000", "91.200.16.2:53"), count: NATCounters{Translated: 1}},
		"back, within":       {record: flow.Record{Key: key("91.200.16.2:53", "10.0.0.2:1000")}, entry: masqueraded, want: masqueraded.Reply, count: NATCounters{Translated: 1}},
		"out, without":       {record: flow.Record{Key: key("45.83.0.1:20000", "91.200.16.2:53")}, entry: masqueraded, want: key("45.83.0.1:20000", "91.200.16.2:53")},
		"forwarded, within":  {record: flow.Record{Key: key("91.200.16.2:2000", "10.0.0.3:8080")}, entry: forwarded, want: forwarded.Original, count: NATCounters{Translated: 1}},
		"answered, within":   {record: flow.Record{Key: forwarded.Reply}, entry: forwarded, want: key("45.83.0.1:80", "91.200.16.2:2000"), count: NATCounters{Translated: 1}},
		"out, IPv6":          {record: flow.Record{Key: v6.Original}, entry: v6, want: key("[2600::1]:20000", "[2a00::2]:53"), count: NATCounters{Translated: 1}},
		"back, IPv6":         {record: flow.Record{Key: key("[2a00::2]:53", "[fd00::2]:1000")}, entry: v6, want: v6.Reply, count: NATCounters{Translated: 1}},
		"no connection":      {record: flow.Record{Key: masqueraded.Original}, want: masqueraded.Original, count: NATCounters{Unknown: 1}},
		"another connection": {record: flow.Record{Key: masqueraded.Original}, entry: forwarded, want: masqueraded.Original, count: NATCounters{Unknown: 1}},
		"no translation":     {record: flow.Record{Key: private.Original}, entry: private, want: private.Original, count: NATCounters{Unknown: 1}},
		"a loop at home": {record: flow.Record{Key: hairpin.Original}, entry: hairpin, want: key("45.83.0.1:20001", "45.83.0.1:80"),
			count: NATCounters{Translated: 1}},
	} {
		n := NAT{Reachable: policy.New(nil).Reachable, Lookup: func(*flow.Key) (conntrack.Entry, error) {
			if c.entry == (conntrack.Entry{}) {
				return conntrack.Entry{}, conntrack.ErrNone
			}
			return c.entry, nil
		}}
		r := c.record
		n.Translate(&r)
		if d := cmp.Diff(c.want, r.Key); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if n.NATCounters != c.count {
			t.Errorf("%s: %+v", name, n.NATCounters)
		}
	}
}

func TestWhatCannotBeAskedIsCounted(t *testing.T) {
	trouble := errors.New("not permitted")
	n := NAT{Reachable: policy.New(nil).Reachable, Lookup: func(*flow.Key) (conntrack.Entry, error) { return conntrack.Entry{}, trouble }}
	r := flow.Record{Key: key("10.0.0.2:1000", "91.200.16.2:53")}
	n.Translate(&r)
	if n.Failed != 1 || n.Failure != trouble || r.Key != key("10.0.0.2:1000", "91.200.16.2:53") {
		t.Errorf("%+v, %+v", n, r)
	}
	n.Lookup = nil
	n.Translate(&r)
	if n.Unknown != 1 {
		t.Errorf("%+v", n.NATCounters)
	}
}

func TestAnOpenedPrivateAddressIsNotReplaced(t *testing.T) {
	n := NAT{Reachable: policy.New([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}).Reachable,
		Lookup: func(*flow.Key) (conntrack.Entry, error) { t.Error("it is looked up"); return conntrack.Entry{}, nil }}
	r := flow.Record{Key: key("10.0.0.2:1000", "91.200.16.2:53")}
	n.Translate(&r)
	if r.Key != key("10.0.0.2:1000", "91.200.16.2:53") {
		t.Errorf("%+v", r.Key)
	}
}
