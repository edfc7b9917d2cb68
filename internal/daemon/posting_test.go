// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/tracer"
)

func TestPinsAreReadAsTheyWereWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients")
	now := time.Unix(1_800_000_000, 0)
	if pins, err := readPins(path, now); pins != nil || err != nil {
		t.Errorf("no file: %v, %v", pins, err)
	}
	want := []sender.Pin{
		{Addr: netip.MustParseAddr("91.200.16.2"), Seal: tracer.SealKey{1}, Signer: tracer.PublicKey{2}, Age: 5 * time.Second},
		{Addr: netip.MustParseAddr("2a00::2"), Seal: tracer.SealKey{3}, Age: time.Hour},
	}
	text := appendPins(nil, want, now)
	for name, c := range map[string]struct {
		text string
		n    int
		bad  bool
	}{
		"whole":           {string(text), 2, false},
		"cut":             {string(text[:len(text)-20]), 1, true},
		"of another kind": {strings.Replace(string(text), "91.200", "91,200", 1), 0, true},
		"empty":           {"", 0, false},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readPins(path, now)
		if (err != nil) != c.bad || len(got) != c.n || c.n > 0 && !reflect.DeepEqual(got, want[:c.n]) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// A router's clock begins in 1970: what was told then is not older than now.
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readPins(path, time.Unix(0, 0)); err != nil || got[0].Age != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
