// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/source"
)

// saying is a log that one goroutine writes and another reads.
type saying struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *saying) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

// since returns what was said since it was last asked.
func (s *saying) since() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.b.Reset()
	return s.b.String()
}

func key4(src, dst string) flow.Key {
	k := flow.Key{Family: flow.IPv4, Protocol: 17}
	copy(k.Src[:], netip.MustParseAddr(src).AsSlice())
	copy(k.Dst[:], netip.MustParseAddr(dst).AsSlice())
	return k
}

// TestTheListIsReadAgainWhenItChanges, and one that is not valid is left alone.
func TestTheListIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("192.0.2.0/24\n")
	synctest.Test(t, func(t *testing.T) {
		var said saying
		l := list{path: path, most: 2}
		if _, err := l.load(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { l.watch(ctx, log.New(&said, "", 0)) })
		has := func(text string) bool {
			k := key4(text, text)
			return l.set.Load().Contains(flow.IPv4, &k.Src)
		}
		for _, step := range []struct {
			text      string
			has, hasn string
			said      string
		}{
			{"192.0.2.0/24\n198.51.100.1\n", "198.51.100.1", "203.0.113.1", "2 prefixes"},
			{"203.0.113.1\nrubbish\n", "198.51.100.1", "203.0.113.1", `"rubbish"`},
			{"1.1.1.1\n1.1.1.2\n1.1.1.3\n", "198.51.100.1", "1.1.1.1", "--max-suspects"},
			{"203.0.113.1\n", "203.0.113.1", "198.51.100.1", "1 prefix"},
			{"", "", "203.0.113.1", "0 prefixes"},
		} {
			write(step.text)
			time.Sleep(lookAtList + time.Second)
			synctest.Wait()
			if step.has != "" && !has(step.has) || has(step.hasn) {
				t.Errorf("after %q: %s %v, %s %v", step.text, step.has, step.has == "" || has(step.has), step.hasn, has(step.hasn))
			}
			if text := said.since(); !strings.Contains(text, step.said) {
				t.Errorf("after %q it says %q", step.text, text)
			}
			time.Sleep(3 * lookAtList)
			synctest.Wait()
			if text := said.since(); text != "" {
				t.Errorf("without a change it says %q", text)
			}
		}
		os.Remove(path)
		time.Sleep(3 * lookAtList)
		synctest.Wait()
		if text := said.since(); strings.Count(text, "no such file") != 1 {
			t.Errorf("of a file that went it says %q", text)
		}
		cancel()
		watching.Wait()
	})
}

// TestWhatIsKnownOfAHit: the cold side has the last word on whether a source is forged,
// and what our own translation put in its place is not.
func TestWhatIsKnownOfAHit(t *testing.T) {
	special := &prefix.Set{}
	exported := evidence.MakeGuards([]evidence.ExporterInterface{{Exporters: netip.MustParsePrefix("0.0.0.0/0"), Index: 1, Role: evidence.LAN,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("45.83.0.0/16")}}}, special)
	for _, c := range []struct {
		src, translated string
		suspicion       evidence.Reasons
		want            string
	}{
		{"45.83.1.1", "", evidence.Listed, "no prefix lan [listed]"},
		{"45.83.1.1", "", evidence.Spoofed, "no prefix lan []"},
		{"10.1.1.1", "", evidence.Rate, "yes prefix lan [spoofed rate]"},
		{"10.1.1.1", "45.83.9.9", evidence.Rate | evidence.Spoofed, "unknown  lan [rate]"},
	} {
		d := &daemon{config: &config.Config{}, nat: &evidence.NAT{Reachable: func(a netip.Addr) bool { return !a.IsPrivate() }}}
		d.known.origins = evidence.NewOrigins(evidence.OriginOptions{Special: special, Exporters: exported}, nil)
		h := source.Hit{Record: flow.Record{Key: key4(c.src, "8.8.8.8"), Known: flow.HasIngress, Ingress: 1, Source: flow.Source{Protocol: flow.IPFIX, Version: 10}},
			Suspicion: c.suspicion, Exporter: netip.MustParseAddr("127.0.0.1")}
		if c.translated != "" {
			h.Record.Known |= flow.HasTranslatedSrc
			other := key4(c.translated, "8.8.8.8")
			h.Record.TranslatedSrc = other.Src
		}
		about := d.about(&h)
		e := about.Evidence
		if got := fmt.Sprintf("%s %s %s %v", e.Spoofed, e.Method, e.Point, e.Suspicion); got != c.want {
			t.Errorf("%s, translated to %q, suspicion %v: %s, want %s", c.src, c.translated, c.suspicion.Names(), got, c.want)
		}
		if n := d.known.verdicts[evidence.Yes] + d.known.verdicts[evidence.No] + d.known.verdicts[evidence.Unknown]; n != 1 {
			t.Errorf("%v verdicts", d.known.verdicts)
		}
	}
}
