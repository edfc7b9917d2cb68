// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
	"github.com/overflowd/overflowd/internal/netns"
)

// scripted is what the init script starts the daemon with, and makes in /var/run before.
type scripted struct{ env, args, made []string }

// scripts keeps what it did for a configuration.
var scripts sync.Map

// script returns it for a configuration, on a router without ujail. The init script runs
// in BusyBox ash over the files of the package for this machine, which checks the
// arguments.
func script(t testing.TB, configuration string) *scripted {
	t.Helper()
	if s, ok := scripts.Load(configuration); ok {
		return s.(*scripted)
	}
	netns.Need(t, "busybox", "chroot")
	b := board(t, "x86-64")
	root, err := b.Unpack(packages, "overflowd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	stub, err := os.ReadFile("rc.sh")
	if err != nil {
		t.Fatal(err)
	}
	procd, err := os.ReadFile("../internal/pack/testdata/procd.sh")
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		"rc.sh": stub, "procd.sh": procd, "busybox": program, "etc/config/overflowd": []byte(configuration), "lib/functions/network.sh": nil, "bin/.made": nil,
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("chroot", root, "/busybox", "--install", "/bin").CombinedOutput(); err != nil {
		t.Fatalf("busybox --install: %v: %s", err, out)
	}
	var said bytes.Buffer
	c := exec.Command("chroot", root, "/busybox", "ash", "/rc.sh")
	c.Stderr = &said
	out, err := c.Output()
	if err != nil || said.Len() > 0 {
		t.Fatalf("the init script: %v: %s%s", err, out, &said)
	}
	s := new(scripted)
	for part := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
		switch words := strings.Split(part, "\n"); words[0] {
		case "env":
			s.env = words[1:]
		case "command":
			s.args = words[1:]
		}
	}
	if len(s.args) == 0 {
		t.Fatalf("the init script starts nothing: %s", out)
	}
	entries, err := os.ReadDir(filepath.Join(root, "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		s.made = append(s.made, e.Name())
	}
	scripts.Store(configuration, s)
	return s
}

// usual is the configuration that the tests add interfaces and exporters to.
const usual = `config overflowd 'general'
	option enabled '1'
	list send 'udp'
	option rate '1/1000'

config contact 'contact'
	option email 'abuse@example.net'

`

// start starts the daemon as the init script does for the configuration, with
// interfaces and exporters added, and waits until it answers. In an image of OpenWrt
// that has its own init script do it.
func start(m *machine.Machine, configuration string) *machine.Daemon {
	if m.Image() {
		m.Do(control.Request{Write: &control.Write{Path: "/etc/config/overflowd", Data: []byte(usual + configuration), Mode: 0o644}})
		return serve(m)
	}
	s := script(m.TB(), usual+configuration)
	for _, name := range s.made {
		m.Do(control.Request{Write: &control.Write{Path: "/run/" + name + "/.made"}})
	}
	return startWith(m, s.env, s.args...)
}

func TestInitScriptMakesArgumentsOfTheConfiguration(t *testing.T) {
	s := script(t, "config overflowd 'general'\n\toption enabled '1'\n\tlist send 'udp'\n\toption memlimit '9'\n"+
		"config contact\n\toption identity \"Example's Net, & more\"\n\toption email 'a@example.net'\n"+capturing)
	if got, want := strings.Join(s.env, " "), "GOMEMLIMIT=9MiB GOGC=50"; got != want {
		t.Errorf("the environment is %q, not %q", got, want)
	}
	want := []string{"/usr/bin/overflowd", "--send", "udp", "--contact-email", "a@example.net", "--contact-identity", "Example's Net, & more",
		"--interface", "eth0:wan", "--state", "/etc/overflowd", "--status", "/var/run/overflowd/status.sock", "--user", "overflowd"}
	if diff := cmp.Diff(want, s.args); diff != "" {
		t.Errorf("the arguments (-want +got):\n%s", diff)
	}
}
