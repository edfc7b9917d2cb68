// SPDX-License-Identifier: BSD-3-Clause

package deb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestADeb is read, installed, removed and purged by dpkg, in a root of its own.
func TestADeb(t *testing.T) {
	for name := range descriptions {
		t.Run(name, func(t *testing.T) { testADeb(t, name) })
	}
	if _, err := Build(Options{Name: "other", Root: "../../.."}); err == nil {
		t.Error("a package that nobody knows was built")
	}
}

func testADeb(t *testing.T, name string) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	o := Options{Name: name, Root: "../../..", Program: program, Arch: "all", Version: "1.2.3", At: time.Unix(1_795_000_000, 0)}
	b, err := Build(o)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Build(o); !bytes.Equal(b, again) {
		t.Error("two packages of the same files differ")
	}
	file := filepath.Join(dir, o.File())
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	contents := run("dpkg-deb", "--contents", file)
	for _, want := range []string{"-rwxr-xr-x 0/0               7 2026-11-18", "./usr/bin/" + name, "./lib/systemd/system/" + name + ".service", "./etc/default/" + name, "./usr/share/doc/" + name + "/copyright"} {
		if !strings.Contains(contents, want) {
			t.Errorf("%q is not in:\n%s", want, contents)
		}
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if got := run("dpkg-deb", "--info", file, script); !strings.Contains(got, "\nname="+name+"\n") || strings.Count(got, "overflow") != 1 {
			t.Errorf("%s is not of this package:\n%s", script, got)
		}
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// There is no shell in the root: the scripts run outside, with DPKG_ROOT.
	dpkg := func(args ...string) string {
		return run("dpkg", append([]string{"--root=" + root, "--log=/dev/null", "--force-script-chrootless", "--force-not-root", "--force-bad-path"}, args...)...)
	}
	dpkg("--install", file)
	if out := dpkg("--verify", name); out != "" {
		t.Errorf("dpkg --verify: %s", out)
	}
	if got, err := os.ReadFile(filepath.Join(root, "usr/bin", name)); err != nil || string(got) != "program" {
		t.Errorf("%q, %v", got, err)
	}
	dpkg("--remove", name)
	if _, err := os.Stat(filepath.Join(root, "etc/default", name)); err != nil {
		t.Errorf("after removal: %v", err)
	}
	dpkg("--purge", name)
	if _, err := os.Stat(filepath.Join(root, "etc/default", name)); err == nil {
		t.Error("the flags are there after a purge")
	}
}
