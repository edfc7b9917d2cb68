// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"encoding/json"
	"io"
	"log"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/flowtable"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/tracer"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// toldOf is a tracer about a flow between two addresses, to one of them.
func toldOf(src, dst, to string) *receiver.Received {
	m := &tracer.Message{Tracer: tracer.Tracer{Rate: 1e-6, Selected: 2, To: netip.MustParseAddr(to), Time: noon.UnixMilli()}}
	m.Flow.Family, m.Flow.Protocol, m.Flow.DstPort = flow.IPv4, 17, 53
	m.Flow.Known = flow.HasPorts | flow.HasStart
	m.Flow.Start = noon.Add(-time.Minute).UnixMilli()
	copy(m.Flow.Src[:], netip.MustParseAddr(src).AsSlice())
	copy(m.Flow.Dst[:], netip.MustParseAddr(dst).AsSlice())
	return &receiver.Received{Message: m, Arrived: noon, Hops: 3}
}

// TestAWitnessSaysOnlyWhatItKnows: an alarm that is false helps nobody.
func TestAWitnessSaysOnlyWhatItKnows(t *testing.T) {
	const us, them, other = "91.200.16.2", "45.83.0.2", "45.83.0.3"
	began := noon.Add(-time.Hour)
	for name, c := range map[string]struct {
		told   *receiver.Received
		change func(*receiving, *receiver.Received)
		want   witness
	}{
		"a flow of ours that we saw":           {toldOf(us, them, us), nil, ours},
		"one to us that we saw":                {toldOf(them, us, us), nil, ours},
		"one of ours that we did not send":     {toldOf(us, other, us), nil, notOurs},
		"one to us that we did not see":        {toldOf(other, us, us), nil, unknown},
		"it began before we watched":           {toldOf(us, other, us), func(x *receiving, _ *receiver.Received) { x.ends = flowtable.NewEnds(noon.Add(-65 * time.Second)) }, unknown},
		"it began when we watched for 10 s":    {toldOf(us, other, us), func(x *receiving, _ *receiver.Received) { x.ends = flowtable.NewEnds(noon.Add(-70 * time.Second)) }, notOurs},
		"packets were lost meanwhile":          {toldOf(us, other, us), func(x *receiving, _ *receiver.Received) { x.gap = noon.Add(-30 * time.Second) }, unknown},
		"packets were lost before":             {toldOf(us, other, us), func(x *receiving, _ *receiver.Received) { x.gap = noon.Add(-2 * time.Minute) }, notOurs},
		"it is stale":                          {toldOf(us, other, us), func(_ *receiving, t *receiver.Received) { t.Stale = true }, unknown},
		"it began before what is remembered":   {toldOf(us, other, us), func(_ *receiving, t *receiver.Received) { t.Flow.Start -= 40 * 60_000 }, unknown},
		"nothing is said of when it began":     {toldOf(us, other, us), func(_ *receiving, t *receiver.Received) { t.Flow.Known = 0 }, notOurs},
		"nothing towards the Internet is seen": {toldOf(us, other, us), func(x *receiving, _ *receiver.Received) { x.ends = nil }, unknown},
	} {
		x := &receiving{ends: flowtable.NewEnds(began)}
		table := flowtable.New(8)
		table.Remember(x.ends)
		for _, seen := range []*receiver.Received{toldOf(us, them, us), toldOf(them, us, us)} {
			p := &flowtable.Packets{Count: 1, Time: noon.UnixMilli()}
			p.Key = seen.Flow.Key
			p.Key.SrcPort = 4711
			table.Add(p)
		}
		if c.change != nil {
			c.change(x, c.told)
		}
		if got := x.witness(c.told); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestWhatIsLoggedIsOneLineAndBounded(t *testing.T) {
	x := toldOf("91.200.16.2", "45.83.0.2", "91.200.16.2")
	for _, hostile := range []string{"a\nb", "\x1b[2J", "\u202egnp", strings.Repeat("A", 1100), "\xff"} {
		x.Contact = tracer.Contact{Email: hostile, Identity: hostile, URL: hostile}
		for _, w := range []witness{unknown, ours, notOurs} {
			s := sentence(x, w)
			if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 || len(s) > 600 {
				t.Errorf("%q", s)
			}
		}
	}
	x.Contact = tracer.Contact{Identity: "Example Net", ASN: 64500}
	if got, want := sentence(x, notOurs), "SPOOFED: somebody sends in the name of 91.200.16.2: Example Net AS64500 (key 0000000000000000, new, 3 hops away) tells of about 2e+06 packets of a flow from 91.200.16.2 to 45.83.0.2 port 53, protocol 17; we sent no such flow"; got != want {
		t.Errorf("%s", got)
	}
	var logged strings.Builder
	d := &daemon{log: log.New(&logged, "", 0)}
	r := &receiving{d: d, lines: linesAtOnce, filled: noon, receiver: receiver.New(receiver.Options{Ledger: receiver.NewLedger(8)})}
	for range 1000 {
		r.take(x)
	}
	if n := strings.Count(logged.String(), "\n"); n != linesAtOnce || r.unlogged != 1000-linesAtOnce {
		t.Errorf("%d lines, %d not logged", n, r.unlogged)
	}
}

// TestWhatOthersTellIsShown: bounded and as JSON, whatever they write.
func TestWhatOthersTellIsShown(t *testing.T) {
	var l told
	show := func() (shown []map[string]any) {
		t.Helper()
		var o object
		l.array(&o)
		if err := json.Unmarshal(o.b, &shown); err != nil {
			t.Fatalf("%v: %s", err, o.b)
		}
		return shown
	}
	if got := show(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	for _, hostile := range []string{"</script>\"\\", "\x00\x1b[2J", "\u202egnp", strings.Repeat("\U0001f600", 1100), "\xff"} {
		x := toldOf("91.200.16.2", "45.83.0.2", "91.200.16.2")
		x.Contact = tracer.Contact{Email: hostile, Identity: hostile, URL: hostile}
		x.Spoofed = hostile
		x.Rate = math.SmallestNonzeroFloat64
		l.add(x, unknown)
	}
	for _, got := range show() {
		by := got["by"].(string) + got["spoofed"].(string)
		if strings.IndexFunc(by, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 || len(by) > 1300 || got["packets"] != float64(1<<53) {
			t.Errorf("%v", got)
		}
	}
	for range 100 {
		l.add(toldOf("192.0.2.1", "192.0.2.2", "192.0.2.2"), ours)
	}
	x := toldOf("91.200.16.2", "45.83.0.2", "91.200.16.2")
	x.Contact, x.Hops, x.Stale = tracer.Contact{Identity: "Example Net", ASN: 64500}, -1, true
	l.add(x, notOurs)
	got := show()
	want := map[string]any{"time": float64(noon.Unix()), "saddr": "91.200.16.2", "daddr": "45.83.0.2", "protocol": 17.0, "sport": 0.0, "dport": 53.0, "packets": 2e6,
		"by": "Example Net AS64500", "key": "0000000000000000", "trust": "new", "witness": "not_ours", "stale": "yes"}
	if diff := cmp.Diff(want, got[0]); diff != "" || len(got) != 16 {
		t.Errorf("%d (-want +got)\n%s", len(got), diff)
	}
	if got[1]["witness"] != "seen" || got[1]["hops"] != 3.0 {
		t.Errorf("%v", got[1])
	}
}

// TestTheLedgerIsWrittenTwiceADay at the most, however often the program starts.
func TestTheLedgerIsWrittenTwiceADay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	ledger := receiver.NewLedger(8)
	d := &daemon{log: log.New(io.Discard, "", 0), started: time.Now().Add(-2 * time.Minute), config: &config.Config{}, policy: policy.New(nil)}
	x := &receiving{d: d, ledger: path, receiver: receiver.New(receiver.Options{Ledger: ledger})}
	written := func() (n int) {
		stamp := time.Time{}
		for range 100 {
			ledger.Changed++
			x.save()
			if info, err := os.Stat(path); err == nil && !info.ModTime().Equal(stamp) {
				stamp = info.ModTime()
				n++
			}
		}
		return n
	}
	if n := written(); n != 1 {
		t.Errorf("%d times at once", n)
	}
	for _, c := range []struct {
		age  time.Duration
		want int
	}{{ledgerEvery - time.Minute, 1}, {ledgerEvery + time.Minute, 2}} { // 1: the file as it was
		at := time.Now().Add(-c.age)
		os.Chtimes(path, at, at)
		first, _ := os.Stat(path)
		n := written()
		last, _ := os.Stat(path)
		if changed := !first.ModTime().Equal(last.ModTime()); changed != (c.want == 2) || n != 1 {
			t.Errorf("%v old: changed %v, %d times", c.age, changed, n)
		}
	}
	fresh := &daemon{log: d.log, started: time.Now(), config: d.config, policy: d.policy}
	x = &receiving{d: fresh, ledger: path + "2", receiver: x.receiver}
	ledger.Changed++
	if x.save(); written() != 1 {
		t.Error("another file changed")
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("it was written as soon as the program started")
	}
}
