// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// TestARunningProgramSeesAnotherKey, and a file that is none changes nothing.
func TestARunningProgramSeesAnotherKey(t *testing.T) {
	k := SealKeys{Dir: t.TempDir()}
	if err := k.Load(); err != nil || k.Key() != (tracer.SealKey{}) {
		t.Fatal(err)
	}
	sealed := make([]byte, 300)
	copy(sealed, "OVERFLWS")
	if _, err := k.Open(sealed); err != Sealed {
		t.Errorf("without a key: %v", err)
	}
	for range MaxSealKeys + 2 {
		all, err := NewSealKey(k.Dir)
		if err != nil || len(all) > MaxSealKeys {
			t.Fatalf("%v: %d keys", err, len(all))
		}
		k.stamp = time.Time{} // a file system's clock may be coarse
		if err := k.Load(); err != nil || k.Key() != all.Key() {
			t.Errorf("%v: %s", err, k.Key())
		}
	}
	have := k.Key()
	if err := os.WriteFile(filepath.Join(k.Dir, SealFile), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.stamp = time.Time{}
	if err := k.Load(); err == nil || k.Key() != have {
		t.Errorf("%v", err)
	}
	if _, err := NewSealKey(k.Dir); err == nil {
		t.Error("what was no key was written over")
	}
}
