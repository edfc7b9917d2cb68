// SPDX-License-Identifier: BSD-3-Clause

package store

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func received(t testing.TB, k byte, seq uint64, level receiver.Level, at time.Time) *receiver.Received {
	m := tracer.Tracer{Time: at.UnixMilli(), Rate: 1e-6, Selected: 1, Seq: seq, Nonce: [8]byte{1, 2}, To: netip.MustParseAddr("203.0.113.5")}
	m.Flow.Family = flow.IPv4
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{k}, ed25519.SeedSize))
	x := &receiver.Received{Signed: tracer.Sign(key, m.AppendMessage(nil)), From: netip.MustParseAddr("2001:db8::1"), Hops: int(seq % 256),
		Arrived: at, Stale: seq%2 == 1, Level: level}
	var err error
	if x.Message, err = x.Signed.Open(); err != nil {
		t.Fatal(err)
	}
	return x
}

// seqs returns what a store holds.
func seqs(t *testing.T, dir string, since time.Time) (n []uint64, err error) {
	err = Read(t.Context(), dir, since, nil, func(x *receiver.Received) error {
		n = append(n, x.Seq)
		return nil
	})
	slices.Sort(n)
	return n, err
}

func equal(a, b *receiver.Received) bool {
	return reflect.DeepEqual(a.Signed, b.Signed) && a.From == b.From && a.Hops == b.Hops && a.Arrived.Equal(b.Arrived) && a.Stale == b.Stale &&
		a.Level == b.Level && reflect.DeepEqual(a.Message, b.Message)
}

func TestALineIsReadAsItWasWritten(t *testing.T) {
	for seq := range uint64(3) {
		x := received(t, 1, seq, receiver.Corroborated, start)
		if seq == 2 {
			x.From, x.Hops = netip.Addr{}, -1
		}
		line := appendLine(nil, x)
		got, err := parseLine(line[:len(line)-1])
		if err != nil || !equal(got, x) {
			t.Errorf("%v: %s", err, line)
		}
		for i := range line[:len(line)-1] {
			bad := bytes.Clone(line[:len(line)-1])
			bad[i] ^= 1
			if y, err := parseLine(bad); err == nil && !equal(y, x) {
				t.Errorf("byte %d changed: it was read", i)
			}
		}
	}
}

func TestWhatWasAddedIsRead(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Limits{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(20) {
		if err := s.Add(received(t, 1, seq, receiver.Level(seq%2), start.Add(time.Duration(seq)*time.Second))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := seqs(t, dir, start.Add(15*time.Second)); err != nil || !slices.Equal(got, []uint64{15, 16, 17, 18, 19}) {
		t.Errorf("%v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Limits{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	s.Add(received(t, 1, 20, 0, start))
	s.Close()
	if got, err := seqs(t, dir, time.Time{}); err != nil || len(got) != 21 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestACutCostsOneLine: at any byte, the lines before and those that are added
// later are read.
func TestACutCostsOneLine(t *testing.T) {
	line := appendLine(nil, received(t, 1, 0, 1, start))
	for cut := range len(line) - 1 {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "tracers"), append(bytes.Clone(line), line[:cut]...), 0o600)
		s, err := Open(dir, Limits{Size: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s.Add(received(t, 1, 2, 1, start))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := seqs(t, dir, time.Time{})
		if !slices.Equal(got, []uint64{0, 2}) || (cut > 0) != (err == Damaged{1}) {
			t.Fatalf("cut at %d: %v, %v", cut, got, err)
		}
	}
}

func size(t *testing.T, dir string) (n int64) {
	for i := range names {
		files, err := list(dir, i)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			n += f.size
		}
	}
	return n
}

// TestNewKeysCannotHaveOthersForgotten and the store stays in its bounds.
func TestNewKeysCannotHaveOthersForgotten(t *testing.T) {
	dir := t.TempDir()
	limit := int64(128 << 10)
	s, err := Open(dir, Limits{Size: limit})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(10) {
		s.Add(received(t, 1, seq, receiver.Consistent, start))
	}
	for seq := uint64(1000); seq < 2000; seq++ {
		if err := s.Add(received(t, 2, seq, receiver.NewKey, start)); err != nil {
			t.Fatal(err)
		}
		if seq%100 == 0 {
			s.Flush()
			if n := size(t, dir); n > limit {
				t.Fatalf("%d bytes after %d", n, seq-1000)
			}
		}
	}
	s.Close()
	got, err := seqs(t, dir, time.Time{})
	if err != nil || len(got) < 20 || !slices.Equal(got[:10], []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) || got[len(got)-1] != 1999 {
		t.Errorf("%v: %v", err, got)
	}
	s, _ = Open(dir, Limits{Size: limit})
	for seq := uint64(5000); seq < 6000; seq++ {
		s.Add(received(t, 3, seq, receiver.Consistent, start))
	}
	s.Close()
	if n := size(t, dir); n > limit {
		t.Errorf("%d bytes", n)
	}
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "tracers.1790000000000")
	for _, name := range []string{old, filepath.Join(dir, "tracers.x"), filepath.Join(dir, "other")} {
		os.WriteFile(name, nil, 0o600)
	}
	s, err := Open(dir, Limits{Size: 1 << 20, Age: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for name, want := range map[string]bool{old: false, filepath.Join(dir, "tracers.x"): true, filepath.Join(dir, "other"): true} {
		if exists(name) != want {
			t.Errorf("%s is there: %v", name, !want)
		}
	}
}

func TestOneKeyFillsAShareOfAMinute(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Limits{Size: 1 << 20, Rate: 5})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(9) {
		s.Add(received(t, 1, seq, 1, start))
	}
	s.Add(received(t, 2, 20, 1, start))
	s.Add(received(t, 1, 21, 1, start.Add(time.Minute)))
	s.Close()
	if got, _ := seqs(t, dir, time.Time{}); !slices.Equal(got, []uint64{0, 1, 2, 3, 4, 20, 21}) || s.Omitted != 4 {
		t.Error(cmp.Diff(got, nil), s.Omitted)
	}
}

func TestProgressIsTold(t *testing.T) {
	dir := t.TempDir()
	s, _ := Open(dir, Limits{Size: 1 << 20})
	for seq := range uint64(9) {
		s.Add(received(t, 1, seq, 1, start))
	}
	s.Close()
	var last, all int64
	stop := errors.New("stop")
	n := 0
	err := Read(t.Context(), dir, time.Time{}, func(read, of int64) { last, all = read, of }, func(*receiver.Received) error { n++; return nil })
	if err != nil || n != 9 || last != all || all == 0 {
		t.Errorf("%v, %d, %d of %d", err, n, last, all)
	}
	if err := Read(t.Context(), dir, time.Time{}, nil, func(*receiver.Received) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if err := Read(t.Context(), filepath.Join(dir, "missing"), time.Time{}, nil, nil); err == nil {
		t.Error("a missing folder: no error")
	}
}

func FuzzLine(f *testing.F) {
	n := 0
	for seq := range uint64(4) {
		line := appendLine(nil, received(f, 1, seq, receiver.Level(seq), start))
		f.Add(line[:len(line)-1])
		n++
	}
	if n != 4 {
		f.Fatal("no corpus")
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		x, err := parseLine(line)
		if err != nil {
			return
		}
		again := appendLine(nil, x)
		if y, err := parseLine(again[:len(again)-1]); err != nil || !equal(x, y) {
			t.Errorf("%v: %q", err, line)
		}
	})
}
