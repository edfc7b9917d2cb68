// SPDX-License-Identifier: BSD-3-Clause

package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/internal/netns"
)

// Options are those of one boot.
type Options struct {
	Memory   int    // MiB
	Squashfs string // of the root
	Flash    string // written to
	// FlashLog, if there is one, gets all writes to the flash, as
	// Documentation/admin-guide/device-mapper/log-writes.rst has it.
	FlashLog string
	// Networks are the interfaces eth0, eth1, ..., each a tap in a namespace.
	Networks []Network
	// ICount makes the guest's clock count instructions.
	ICount bool
	// Date is that of the hardware's clock, as 1970-01-02, which is the guest's then;
	// else the guest's is set.
	Date string
	// Package is installed in an image of OpenWrt, in which Memory is at least
	// 256 and there is no flash. OwnNetwork leaves it its network and firewall:
	// what there is one of in Networks is at its WAN then.
	Package    string
	OwnNetwork bool
}

// A Network is one that the guest has an interface in: the tap of that name is made in
// the namespace.
type Network struct {
	Namespace *netns.Namespace
	Tap       string
}

// A Machine runs. Its methods end the test if the guest cannot do what is asked.
type Machine struct {
	*control.Client
	t       testing.TB
	process *exec.Cmd
	console *console
	conn    net.Conn
	done    chan error // has room for its end
	// Of an image: what its console reads, and how many lines we had it run.
	image    bool
	keyboard io.Writer
	lines    int
	// Boot is how long it took until init answered.
	Boot time.Duration
	// Limit is how long an answer may take: a guest that hangs ends the test, and
	// not go test's own limit, which would not tell where.
	Limit time.Duration
}

// console keeps what the guest says.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// What is far more than any board takes on a machine that is busy.
const (
	bootLimit   = 3 * time.Minute
	answerLimit = 5 * time.Minute
)

// Start boots a board, and waits for init. It ends with the test.
func (b *Board) Start(t testing.TB, o Options) *Machine {
	t.Helper()
	start := b.start
	if b.Image != "" {
		start = b.startImage
	}
	m, err := start(t, o)
	if err != nil {
		t.Fatalf("boot %s: %v", b.Name, err)
	}
	return m
}

// Command returns QEMU's command line but for the console and what a test has.
func (b *Board) command(kernel, init, extra string, o *Options) []string {
	args := append(strings.Fields(b.QEMU), "-m", fmt.Sprint(o.Memory), "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(kernel, "kernel"), "-initrd", init,
		"-append", strings.TrimSpace(fmt.Sprintf("console=%s quiet panic=-1 reboot=t %s %s", b.Console, b.partitions(), extra)),
		"-device", b.virtio("rng", 2))
	flash := "driver=file,filename=" + o.Flash
	if o.FlashLog != "" {
		flash = "driver=blklogwrites,log-super-update-interval=1,file.driver=file,file.filename=" + o.Flash + ",log.driver=file,log.filename=" + o.FlashLog
	} else {
		flash = "format=raw,file=" + o.Flash
	}
	if b.Flash == "pflash" {
		return append(args, "-drive", "if=pflash,"+flash)
	}
	return append(args,
		"-drive", "if=none,id=root,format=raw,readonly=on,file="+o.Squashfs, "-device", b.virtio("blk", 0)+",drive=root",
		"-drive", "if=none,id=flash,"+flash, "-device", b.virtio("blk", 1)+",drive=flash")
}

// virtio names a virtio device of QEMU; the guest finds them in the order of their places.
func (b *Board) virtio(kind string, place int) string {
	if b.MMIO {
		return fmt.Sprintf("virtio-%s-device,bus=virtio-mmio-bus.%d", kind, place)
	}
	return "virtio-" + kind + "-pci"
}

// card is the network card eth n without its host's end; one at PCI would load a ROM.
func (b *Board) card(n int) string {
	name := b.virtio("net", 4+n)
	if !b.MMIO {
		name += ",romfile="
	}
	return name
}

func (b *Board) start(t testing.TB, o Options) (*Machine, error) {
	kernel, err := b.Kernel()
	if err != nil {
		return nil, err
	}
	init, err := b.init()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	args := append(b.command(kernel, init, "", &o), "-serial", "stdio",
		"-chardev", "socket,id=control,fd=3", "-device", b.virtio("serial", 3),
		"-device", "virtserialport,chardev=control,name="+control.Port)
	files := []*os.File{theirs}
	for i, n := range o.Networks {
		tap, err := openTap(n)
		if err != nil {
			return nil, fmt.Errorf("open tap %s: %w", n.Tap, err)
		}
		defer tap.Close()
		files = append(files, tap)
		args = append(args, "-netdev", fmt.Sprintf("tap,id=net%d,fd=%d", i, 3+i+1),
			"-device", fmt.Sprintf("%s,netdev=net%d,mac=%s", b.card(i), i, MAC(i)))
	}
	switch {
	case o.ICount:
		args = append(args, "-icount", "shift=0,align=off,sleep=on", "-rtc", "clock=vm,base=2026-01-01")
	case o.Date != "":
		args = append(args, "-rtc", "base="+o.Date)
	}
	m := &Machine{t: t, process: exec.Command(args[0], args[1:]...), console: new(console), conn: conn, done: make(chan error, 1), Limit: bootLimit}
	m.process.Stdout, m.process.Stderr, m.process.ExtraFiles = m.console, m.console, files
	m.process.WaitDelay = time.Second
	began := time.Now()
	if err := m.process.Start(); err != nil {
		return nil, err
	}
	m.watch(b)
	m.Client = control.NewClient(conn)
	if _, err := m.Ask(control.Request{}); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.Join(args, " "))
	}
	m.Boot, m.Limit = time.Since(began), answerLimit
	if o.Date == "" && !o.ICount { // no board's kernel asks the clock of the hardware
		_, err = m.Ask(control.Request{Clock: time.Now().Unix()})
	}
	return m, err
}

// watch waits for the end of the machine, which is that of the test at the latest.
func (m *Machine) watch(b *Board) {
	go func() { m.done <- m.process.Wait() }()
	m.t.Cleanup(func() {
		m.Cut()
		if m.t.Failed() {
			m.t.Logf("the console of %s:\n%s", b.Name, m.console)
		}
	})
}

// MAC returns the address of interface i.
func MAC(i int) string { return fmt.Sprintf("52:54:00:00:00:%02x", i+1) }

func openTap(n Network) (f *os.File, err error) {
	err = n.Namespace.Do(func() error {
		f, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		q, err := unix.NewIfreq(n.Tap)
		if err != nil {
			return err
		}
		q.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, q)
	})
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

// Cut ends it as a power cut does.
func (m *Machine) Cut() {
	m.process.Process.Kill()
	if m.conn != nil {
		m.conn.Close()
	}
	select {
	case err := <-m.done:
		m.done <- err
	case <-time.After(10 * time.Second):
	}
}

// Halt ends it in order.
func (m *Machine) Halt() {
	m.t.Helper()
	m.Client.Ask(control.Request{Halt: true}) // the end is the answer
	select {
	case err := <-m.done:
		m.done <- err
	case <-time.After(time.Minute):
		m.t.Fatal("it does not halt")
	}
}

// Console returns what it said there.
func (m *Machine) Console() string { return m.console.String() }

// Ask asks for something. The error is the guest's, or says that it did not answer
// within the limit; it is turned off then.
func (m *Machine) Ask(r control.Request) (*control.Answer, error) {
	late := make(chan bool, 1)
	timer := time.AfterFunc(m.Limit, func() { late <- true; m.Cut() })
	defer timer.Stop()
	a, err := m.Client.Ask(r)
	if err != nil && len(late) > 0 {
		return nil, fmt.Errorf("%w within %v", ErrHangs, m.Limit)
	}
	return a, err
}

// ErrHangs is the error of a guest that does not answer.
var ErrHangs = errors.New("the guest does not answer")

// Do asks for something.
func (m *Machine) Do(r control.Request) *control.Answer {
	m.t.Helper()
	a, err := m.Ask(r)
	if err != nil {
		m.t.Fatal(err)
	}
	return a
}

// Root is where the root of the router is in the guest.
const Root = control.Root

// flashes returns the devices of the squashfs and of what is laid over it.
func (b *Board) flashes() (rom, data string) {
	if b.Flash == "pflash" {
		return "/dev/mtdblock1", "mtd2"
	}
	return "/dev/vda", "mtd0"
}

// MountRoot mounts the squashfs and, over it, the flash, as a router does, at Root.
func (m *Machine) MountRoot(b *Board) {
	m.t.Helper()
	if m.image { // has its own
		return
	}
	for _, w := range control.RootMounts(b.flashes()) {
		m.Do(control.Request{Mount: &w})
	}
}

// Run runs a program of the router's root, and returns what it says. Exit codes but 0
// end the test.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	a := m.Do(control.Request{Run: &control.Run{Root: Root, Args: args}})
	if a.Code != 0 {
		m.t.Fatalf("%s: exit %d: %s%s", strings.Join(args, " "), a.Code, a.Out, a.Err)
	}
	return string(a.Out)
}

// StartDaemon starts a program of the router's root.
func (m *Machine) StartDaemon(env []string, args ...string) *Daemon {
	m.t.Helper()
	a := m.Do(control.Request{Run: &control.Run{Root: Root, Args: args, Env: env, Start: true}})
	return &Daemon{m: m, Pid: a.Pid}
}

// Read returns a file of the guest.
func (m *Machine) Read(path string) string {
	m.t.Helper()
	return string(m.Do(control.Request{Read: path}).Out)
}

// A Daemon was started.
type Daemon struct {
	m   *Machine
	Pid int
	// Of an image: the name of its init script.
	service string
}

// Service is the daemon in /usr/bin that the init script of an image runs.
func (m *Machine) Service(name string) *Daemon {
	m.t.Helper()
	pids := m.Serving(name)
	if len(pids) != 1 {
		m.t.Fatalf("%d of %s run", len(pids), name)
	}
	return &Daemon{m, pids[0], name}
}

// Serving returns the processes of a daemon. (pidof names threads, and the init script.)
func (m *Machine) Serving(name string) (pids []int) {
	m.t.Helper()
	for word := range strings.FieldsSeq(m.Shell("for i in /proc/[0-9]*; do [ \"$(readlink $i/exe)\" != /usr/bin/" + name + " ] || echo ${i##*/}; done")) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			m.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// Err returns what it said on standard error, or to the log.
func (d *Daemon) Err() string {
	d.m.t.Helper()
	if d.service != "" {
		return d.m.Shell("logread -e " + d.service + " || true")
	}
	return d.m.Read(fmt.Sprintf("/run/%d.err", d.Pid))
}

// Out returns what it said on standard output.
func (d *Daemon) Out() string { d.m.t.Helper(); return d.m.Read(fmt.Sprintf("/run/%d.out", d.Pid)) }

// Stop ends it by a signal, and returns its exit code. The init script ends it by
// SIGTERM, and nobody tells the code.
func (d *Daemon) Stop(signal unix.Signal) int {
	d.m.t.Helper()
	if d.service != "" {
		d.m.Shell("/etc/init.d/" + d.service + " stop")
		d.m.Until(d.service+" ends", func() bool { return len(d.m.Serving(d.service)) == 0 })
		return 0
	}
	return d.m.Do(control.Request{Kill: &control.Kill{Pid: d.Pid, Signal: int(signal), Wait: true}}).Code
}

// Memory returns a value of /proc/PID/status in kB, such as VmRSS.
func (d *Daemon) Memory(name string) int {
	d.m.t.Helper()
	for line := range strings.Lines(d.m.Read(fmt.Sprintf("/proc/%d/status", d.Pid))) {
		var v int
		if n, _ := fmt.Sscanf(line, name+":%d kB", &v); n == 1 {
			return v
		}
	}
	d.m.t.Fatalf("process %d has no %s", d.Pid, name)
	return 0
}

// TB returns the test.
func (m *Machine) TB() testing.TB { return m.t }

// Until waits until the condition is true.
func (m *Machine) Until(what string, condition func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within a minute", what)
		}
	}
}
