// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// installed runs make install and returns the folder of it.
func installed(t *testing.T, to string, variables ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-s", "-C", "../..", "install", "DESTDIR=" + to}, variables...)...)
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return to
}

// TestUnits: what make install leaves is what systemd takes, and the programs take the
// flags that the units and the examples of flags have.
func TestUnits(t *testing.T) {
	root := installed(t, t.TempDir(), "PREFIX=/usr/local")
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	for _, name := range []string{"overflowd", "overflow-receiver"} {
		unit := read(t, filepath.Join(root, "usr/local/lib/systemd/system", name+".service"))
		defaults := filepath.Join(root, "etc/default", name)
		command := regexp.MustCompile(`(?m)^ExecStart=(/usr/local/bin/` + name + `)( .*)? \$(\w+)$`).FindStringSubmatch(unit)
		if command == nil {
			t.Errorf("no command in:\n%s", unit)
			continue
		}
		if want := "EnvironmentFile=-/etc/default/" + name + "\n"; !strings.Contains(unit, want) {
			t.Errorf("%s.service has no %s", name, want)
		}
		set := regexp.MustCompile(`(?m)^(#?)`+command[3]+`="?(.*?)"?$`).FindAllStringSubmatch(read(t, defaults), -1)
		if len(set) != 2 || set[0][1] != "#" || set[1][0] != command[3]+"=" {
			t.Errorf("%s has an example of flags, and none: %q", defaults, set)
			continue
		}
		// An argument that is wrong comes after all those that are right.
		args := append(strings.Fields(command[2]+" "+set[0][2]), "--nonsense")
		out, err := exec.Command(filepath.Join(root, command[1]), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "-nonsense") {
			t.Errorf("%s %q: %v, %s", name, args, err, out)
		}
		for _, hardened := range []string{"Type=notify", "DynamicUser=yes", "StateDirectory=" + name, "NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=@system-service"} {
			if !strings.Contains(unit, "\n"+hardened+"\n") {
				t.Errorf("%s.service has no %s", name, hardened)
			}
		}
		// Standard error is where standard output is, if nothing else is said.
		if strings.Contains(unit, "StandardOutput=null") && !strings.Contains(unit, "StandardError=journal") {
			t.Errorf("the log of %s.service is nowhere", name)
		}
		if analyze == "" {
			continue
		}
		file := filepath.Join(t.TempDir(), name+".service")
		here := strings.ReplaceAll(unit, "/usr/local/bin/", filepath.Join(root, "usr/local/bin")+"/")
		if err := os.WriteFile(file, []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s.service: %v\n%s", name, err, out)
		}
		// 2.5 of 10: CAP_NET_RAW, and the network that they are for, remain.
		if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=25", file).CombinedOutput(); err != nil {
			t.Errorf("systemd-analyze security %s.service: %v\n%s", name, err, out)
		}
	}

	mine := filepath.Join(root, "etc/default/overflow-receiver")
	if err := os.WriteFile(mine, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	installed(t, root, "PREFIX=/usr/local")
	if got := read(t, mine); got != "mine" {
		t.Errorf("the flags are lost when it is installed again: %q", got)
	}
}
