// SPDX-License-Identifier: BSD-3-Clause

package machine

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/overflowd/overflowd/board/control"
)

// The network at which an image of OpenWrt, whose LAN is at 192.168.1.1, and the host
// talk. QEMU has it, and passes what goes to the host's address to the host's loopback.
// Which interface is LAN, and which network card there is a driver for, differs by target:
// see etc/board.d/02_network and DEFAULT_PACKAGES of target/linux/malta and armsr.
const (
	lan     = "192.168.1.0/24"
	lanHost = "192.168.1.2"
	lanPort = "control0" // of the guest, when it is not OpenWrt's own
)

// What is enough for an image whose files are all in memory, in MiB.
const imageMemory = 256

// UseImage has the board boot an initramfs image of OpenWrt, in place of a kernel and a
// root of our own, and packages be installed in it that lie in the folder
// packages/ARCHITECTURE.
func (b *Board) UseImage(image, packages string) error {
	for _, path := range []*string{&image, &packages} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(absolute); err != nil {
			return err
		}
		*path = absolute
	}
	b.Image, b.packages = image, packages
	return nil
}

// startImage boots the image. At its serial console we log in, stop its network and
// firewall unless the test wants them, fetch init, which does what tests ask for there,
// too, and install the package of the options.
func (b *Board) startImage(t testing.TB, o Options) (*Machine, error) {
	agent, err := b.agent()
	if err != nil {
		return nil, err
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	files, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(filepath.Join(b.packages, b.Packages))))
	mux.HandleFunc("/agent", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, agent) })
	server := &http.Server{Handler: mux}
	go server.Serve(files)
	t.Cleanup(func() { server.Close() })

	args := append(strings.Fields(b.QEMU), "-m", fmt.Sprint(max(o.Memory, imageMemory)), "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", b.Image, "-serial", "stdio", "-device", "virtio-rng-pci")
	// The interface that the host is at is OpenWrt's LAN, or the last one.
	var opened []*os.File
	var cards []string
	for i, n := range o.Networks {
		tap, err := openTap(n)
		if err != nil {
			return nil, fmt.Errorf("open tap %s: %w", n.Tap, err)
		}
		defer tap.Close()
		opened = append(opened, tap)
		cards = append(cards, fmt.Sprintf("tap,fd=%d", 3+i))
	}
	host := len(cards)
	if o.OwnNetwork {
		host = b.ImageLAN
	}
	for i, backend := range slices.Insert(cards, host, "user,net="+lan+",host="+lanHost) {
		args = append(args, "-netdev", fmt.Sprintf("%s,id=net%d", backend, i), "-device", fmt.Sprintf("%s,netdev=net%d,romfile=,mac=%s", b.ImageCard, i, MAC(i)))
	}
	if o.Date != "" {
		args = append(args, "-rtc", "base="+o.Date)
	}
	m := &Machine{t: t, process: exec.Command(args[0], args[1:]...), console: new(console), done: make(chan error, 1), Limit: answerLimit, image: true}
	m.process.Stdout, m.process.Stderr, m.process.ExtraFiles = m.console, m.console, opened
	m.process.WaitDelay = time.Second
	if m.keyboard, err = m.process.StdinPipe(); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := m.process.Start(); err != nil {
		return nil, err
	}
	m.watch(b)

	at := m.said(0, "press Enter to activate this console")
	fmt.Fprintln(m.keyboard)
	m.said(m.said(at, "root@"), "# ")
	m.Boot = time.Since(began)
	m.Shell("dmesg -n 1")
	// The console comes before the services.
	m.await("ubus list | grep -q '^network.interface$'")
	if o.OwnNetwork {
		m.await("ifstatus lan | grep -q '\"up\": true'")
	} else {
		m.Shell("/etc/init.d/firewall stop; /etc/init.d/network stop; true")
		m.Shell(fmt.Sprintf("for i in /sys/class/net/eth*; do [ $(cat $i/address) != %s ] || name=${i##*/}; done; "+
			"ip link set $name down && ip link set $name name %s && ip addr add 192.168.1.1/24 dev %[2]s && ip link set %[2]s up", MAC(host), lanPort))
	}
	from := fmt.Sprintf("http://%s:%d/", lanHost, files.Addr().(*net.TCPAddr).Port)
	m.Shell("wget -O /tmp/agent " + from + "agent && chmod 755 /tmp/agent && mount -o rbind / " + Root)
	fmt.Fprintf(m.keyboard, "/tmp/agent agent %s:%d &\n", lanHost, l.Addr().(*net.TCPAddr).Port)
	l.SetDeadline(time.Now().Add(bootLimit))
	conn, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("wait for init in the image: %w", err)
	}
	m.conn, m.Client = conn, control.NewClient(conn)
	if _, err := m.Ask(control.Request{}); err != nil {
		return nil, err
	}
	if o.Date == "" {
		m.Do(control.Request{Clock: time.Now().Unix()})
	}
	if o.Package != "" {
		m.install(b, o.Package, from)
	}
	return m, nil
}

// install installs a package with the manager that the image has.
func (m *Machine) install(b *Board, name, from string) {
	m.t.Helper()
	pattern, command := name+"_*.ipk", "opkg install --add-arch all:1 --add-arch noarch:1 --add-arch "+b.Packages+":10 "
	if m.Shell("command -v apk || true") != "" {
		pattern, command = name+"-[0-9]*.apk", "apk add --allow-untrusted "
	}
	found, err := filepath.Glob(filepath.Join(b.packages, b.Packages, pattern))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("%d packages %s", len(found), pattern)
	}
	file := filepath.Base(found[0])
	m.Shell("wget -O /tmp/" + file + " " + from + file)
	m.t.Log(m.Shell(command + "/tmp/" + file))
	m.Shell("rm /tmp/" + file)
}

// Image tells whether it is one of OpenWrt.
func (m *Machine) Image() bool { return m.image }

// said waits for words in what the console said from an offset on, and returns the
// offset behind them.
func (m *Machine) said(from int, words string) int {
	m.t.Helper()
	for deadline := time.Now().Add(answerLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if i := strings.Index(m.Console()[from:], words); i >= 0 {
			return from + i + len(words)
		}
	}
	m.t.Fatalf("the console does not say %q", words)
	return 0
}

// await waits until a command of the image's shell succeeds; the test ends when that takes
// three minutes.
func (m *Machine) await(command string) {
	m.t.Helper()
	m.Shell("(for i in $(seq 180); do " + command + " && exit; sleep 1; done; echo three minutes are over; exit 1)")
}

// Shell has the shell at the serial console of an image run a line, and returns what it
// says. Exit codes but 0 end the test.
func (m *Machine) Shell(line string) string {
	m.t.Helper()
	m.lines++
	begin, end := fmt.Sprintf("begin-%d:", 2*m.lines), fmt.Sprintf("end-%d:", 2*m.lines)
	from := len(m.Console())
	// The shell shows the line as it is typed, in which these numbers are not.
	fmt.Fprintf(m.keyboard, "echo begin-$((2*%d)):; { %s; }; echo end-$((2*%[1]d)):$?\n", m.lines, line)
	from = m.said(from, begin)
	to := m.said(from, end)
	last := m.said(to, "\n")
	text := m.Console()
	out := strings.TrimSpace(strings.ReplaceAll(text[from:to-len(end)], "\r", ""))
	if code := strings.TrimSpace(text[to:last]); code != "0" {
		m.t.Fatalf("%s: exit %s: %s", line, code, out)
	}
	return out
}
