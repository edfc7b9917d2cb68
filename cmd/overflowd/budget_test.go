// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var dist = flag.String("dist", "", "folder of the cross-built programs")

// TestBudgetOfSizes holds the stripped mips programs to their bars: a router has
// 16 MB of flash or less.
func TestBudgetOfSizes(t *testing.T) {
	if *dist == "" {
		t.Skip("make budget runs this over the cross-built programs")
	}
	const mb = 1_000_000
	for name, most := range map[string]int64{"overflowd-mini-mips": 4.0 * mb, "overflowd-mini-mipsle": 4.0 * mb,
		"overflowd-mips": 7.5 * mb, "overflowd-mipsle": 7.5 * mb} {
		info, err := os.Stat(filepath.Join(*dist, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d of %d bytes", name, info.Size(), most)
		if info.Size() > most {
			t.Errorf("%s has %d bytes, its bar is %d", name, info.Size(), most)
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
