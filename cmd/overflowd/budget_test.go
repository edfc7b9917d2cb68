// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBudgetOfSizes holds the stripped mips programs to their bars: a router has
// 16 MB of flash or less.
func TestBudgetOfSizes(t *testing.T) {
	const mb = 1_000_000
	for tags, most := range map[string]int64{"mini": 4.0 * mb, "": 7.5 * mb} {
		program := filepath.Join(t.TempDir(), "overflowd")
		cmd := exec.Command("make", "-s", "-C", "../..", "release", "OUT="+program, "TAGS="+tags)
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=mips", "GOMIPS=softfloat")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("tags %q: %d of %d bytes", tags, info.Size(), most)
		if info.Size() > most {
			t.Errorf("tags %q: the program has %d bytes, its bar is %d", tags, info.Size(), most)
		}
	}
}

// TestBudgetOfImports keeps out what costs a router more than it is worth.
func TestBudgetOfImports(t *testing.T) {
	for tags, forbidden := range map[string][]string{
		"":     {"encoding/json", "log/slog", "github.com/google/gopacket/layers", "github.com/google/gopacket/pcapgo", "github.com/coreos/go-systemd/v22/activation"},
		"mini": {"encoding/json", "log/slog", "net/http", "crypto/tls", "crypto/x509"},
	} {
		cmd := exec.Command("go", "list", "-deps", "-tags", tags, ".")
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=mips", "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		deps := strings.Fields(string(out))
		if !slices.Contains(deps, "go.etcd.io/bbolt") {
			t.Fatalf("the list is not that of the program: %v", deps)
		}
		for _, f := range forbidden {
			if slices.Contains(deps, f) {
				t.Errorf("tags %q: %s is linked", tags, f)
			}
		}
	}
}
