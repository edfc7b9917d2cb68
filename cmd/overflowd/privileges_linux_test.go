// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPrivilegesAreGivenUp, but for what an interface that comes back needs, on
// all threads.
func TestPrivilegesAreGivenUp(t *testing.T) {
	l := newLab(t)
	program := buildRelease(t)
	iface := "to-" + l.src[:3]
	asNobody := func(args ...string) []string {
		return append([]string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}, args...)
	}
	const netRaw = "0000000000002000"
	for name, c := range map[string]struct {
		command      []string
		capabilities string // that are left, "" if it must not start
		resting      string // with those that are raised for a moment, if there are such
	}{
		"root, capturing":           {[]string{program, "-i", iface, "--user", "nobody"}, netRaw, ""},
		"root, receiving":           {[]string{program, "-u", "7777", "--user", "nobody"}, "0000000000000000", ""},
		"CAP_NET_RAW only":          {append(asNobody("--inh-caps", "+net_raw", "--ambient-caps", "+net_raw"), program, "-i", iface), netRaw, ""},
		"CAP_NET_RAW and CAP_CHOWN": {append(asNobody("--inh-caps", "+net_raw,+chown", "--ambient-caps", "+net_raw,+chown"), program, "-i", iface), netRaw, ""},
		"root, capturing at home":   {[]string{program, "-i", iface + ":lan", "--user", "nobody"}, netRaw, "0000000000003000"},
		"root, counting":            {[]string{program, "--conntrack", "--user", "nobody"}, "0000000000000000", "0000000000001000"},
		"nothing, receiving":        {append(asNobody(), program, "-u", "7777"), "0000000000000000", ""},
		"nothing, yet capturing":    {append(asNobody(), program, "-i", iface), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "overflowd") // that another user may use
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(dir, "socket")
			args := append([]string{"netns", "exec", l.router}, c.command...)
			cmd := exec.Command("ip", append(args, "--state", filepath.Join(dir, "state"), "--status", socket)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			for range 200 {
				if _, err := os.Stat(socket); err == nil {
					break
				}
				select {
				case err := <-ended:
					if c.capabilities != "" || err == nil || !strings.Contains(stderr.String(), "CAP_NET_RAW") {
						t.Errorf("it ended with %v: %s", err, stderr.String())
					}
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
			time.Sleep(300 * time.Millisecond) // the socket comes before the drop
			tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
			if err != nil || len(tasks) < 2 {
				t.Fatalf("%d threads, %v", len(tasks), err)
			}
			for _, task := range tasks {
				status, err := os.ReadFile(task)
				if err != nil {
					continue // of a thread that has ended
				}
				for field, want := range map[string]string{
					"CapPrm": cmp.Or(c.resting, c.capabilities), "CapEff": c.capabilities, "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
					"NoNewPrivs": "1", "Uid": "65534\t65534\t65534\t65534", "Groups": "",
				} {
					m := regexp.MustCompile(`(?m)^` + field + `:\t(.*?) *$`).FindSubmatch(status)
					if m == nil || string(m[1]) != want {
						t.Errorf("%s: %s is %q, want %q", task, field, m, want)
					}
				}
			}
			cmd.Process.Signal(syscall.SIGTERM)
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v: %s", err, stderr.String())
			}
			if name == "root, counting" && !strings.Contains(stderr.String(), "nf_conntrack_acct is 0") {
				t.Errorf("it does not say why nothing is counted: %s", stderr.String())
			}
		})
	}
}
