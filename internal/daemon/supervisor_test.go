// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTheSupervisorHearsOfUs: ready, then alive and what was seen, and the end.
func TestTheSupervisorHearsOfUs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000000")
	c, stop := run(t, "--status", filepath.Join(t.TempDir(), "socket"))
	send(t, c, "127.0.0.1", v5())

	var heard []string
	hear := func(until string) {
		t.Helper()
		notify.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 1000)
		for {
			n, err := notify.Read(b)
			if err != nil {
				t.Fatalf("%v, before %q: %q", err, until, heard)
			}
			if heard = append(heard, string(b[:n])); string(b[:n]) == until {
				return
			}
		}
	}
	hear("READY=1")
	if len(heard) != 1 {
		t.Errorf("before it was ready: %q", heard)
	}
	hear("STATUS=70 packets seen, 0 tracers printed")
	for range 2 {
		hear("WATCHDOG=1")
	}
	stop()
	hear("STOPPING=1")
	if n := strings.Count(strings.Join(heard, " "), "STATUS"); n != 1 {
		t.Errorf("the status was told %d times: %q", n, heard)
	}
}
