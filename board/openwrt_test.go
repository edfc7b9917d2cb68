// SPDX-License-Identifier: BSD-3-Clause

//go:build openwrt

package board

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/overflowd/overflowd/board/machine"
)

// A serial console: what the guest says is kept, and what is asked is typed.
type serial struct {
	t  *testing.T
	in io.Writer

	mu   sync.Mutex
	said bytes.Buffer
	last int // marker
}

func (s *serial) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(b)
}

func (s *serial) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.String()
}

// until waits for words in what was said from an offset on, and returns the offset
// behind them.
func (s *serial) until(from int, words string) int {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if i := strings.Index(s.text()[from:], words); i >= 0 {
			return from + i + len(words)
		}
	}
	s.t.Fatalf("the console does not say %q: %s", words, s.text())
	return 0
}

// run has the shell run a line, and returns what it says. Exit codes but 0 end the test.
func (s *serial) run(line string) string {
	s.t.Helper()
	s.last++
	from := len(s.text())
	// The echo of the line has no number at that place.
	fmt.Fprintf(s.in, "%s; echo \"end-%d:\"$?\n", line, s.last)
	marker := fmt.Sprintf("\nend-%d:", s.last)
	at := s.until(from, marker)
	end := s.until(at, "\n")
	text := s.text()
	_, out, _ := strings.Cut(text[from:at-len(marker)], "\n")
	if code := strings.TrimSpace(text[at:end]); code != "0" {
		s.t.Fatalf("%s: exit %s: %s", line, code, out)
	}
	return strings.ReplaceAll(out, "\r", "")
}

// TestOpenWrt boots the initramfs image of the environment's OPENWRT on the board that
// BOARDS names, installs the package and has it run from its init script. The machine is
// at QEMU's own network as the host of LAN, 192.168.1.2, and gives the package by HTTP.
func TestOpenWrt(t *testing.T) {
	image := os.Getenv("OPENWRT")
	if _, err := os.Stat(image); err != nil {
		t.Fatalf("OPENWRT: %v", err)
	}
	b := board(t, os.Getenv("BOARDS"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(packages, b.Packages)))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	args := append(strings.Fields(b.QEMU), "-m", "256", "-nographic", "-no-reboot", "-kernel", image,
		"-netdev", "user,id=lan,net=192.168.1.0/24,host=192.168.1.2,dhcpstart=192.168.1.100",
		"-device", "virtio-net-pci,netdev=lan,romfile=,mac="+machine.MAC(0))
	c := exec.Command(args[0], args[1:]...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &serial{t: t, in: in}
	c.Stdout, c.Stderr = s, s
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("the console:\n%s", s.text())
		}
	})
	s.until(0, "press Enter to activate this console")
	fmt.Fprintln(in)
	s.until(0, ":/#")
	s.run("dmesg -n 1")
	s.run("for i in $(seq 60); do ifstatus lan | grep -q '\"up\": true' && break; sleep 1; done; ip addr show br-lan")

	const name = "overflowd-mini"
	pattern, install := name+"_*.ipk", "opkg install --add-arch all:1 --add-arch noarch:1 --add-arch "+b.Packages+":10 "
	if s.run("command -v apk || true") != "" {
		pattern, install = name+"-*.apk", "apk add --allow-untrusted "
	}
	found, err := filepath.Glob(filepath.Join(packages, b.Packages, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d packages %s", len(found), pattern)
	}
	file := "/tmp/" + filepath.Base(found[0])
	s.run(fmt.Sprintf("wget -O %s http://192.168.1.2:%d/%s", file, l.Addr().(*net.TCPAddr).Port, filepath.Base(found[0])))
	t.Log(s.run(install + file))
	t.Log(s.run("overflowd --version"))
	// The time is right where there is a clock; else that of the test.
	s.run(fmt.Sprintf("date -s @%d", time.Now().Unix()))
	s.run("uci set overflowd.general.enabled=1; uci set overflowd.contact.email=abuse@example.net; uci commit overflowd")
	s.run("/etc/init.d/overflowd enable; /etc/init.d/overflowd restart")
	t.Log(s.run("for i in $(seq 60); do overflowd status >/dev/null 2>&1 && break; sleep 1; done; overflowd status"))
	s.run("/etc/init.d/overflowd stop")
	s.run("! pidof overflowd")
	t.Log(s.run("opkg remove " + name + " 2>/dev/null || apk del " + name))
}
