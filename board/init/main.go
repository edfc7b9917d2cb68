// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

// Init is the first program of a board. It mounts what a router has mounted and does
// what a test asks for: see package control. With shell=ROM,DATA on the kernel's
// command line it gives a prompt at the console in place of that. Init agent ADDRESS does
// what a test asks for by TCP, in a system that has an init of its own.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "remove" { // asked for by a test, of itself
		if err := os.Remove(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	start := run
	if len(os.Args) == 3 && os.Args[1] == "agent" {
		start = func() error { return agent(os.Args[2]) }
	}
	if err := start(); err != nil {
		fmt.Printf("init: %v\n", err)
	}
	halt()
}

func run() error {
	for _, m := range []control.Mount{
		{Source: "proc", Target: "/proc", Type: "proc"},
		{Source: "sysfs", Target: "/sys", Type: "sysfs"},
		{Source: "dev", Target: "/dev", Type: "devtmpfs"},
		{Source: "run", Target: "/run", Type: "tmpfs"},
		{Source: "tmp", Target: "/tmp", Type: "tmpfs"},
	} {
		if err := mount(&m); err != nil {
			return err
		}
	}
	os.Symlink("/run", "/var/run")
	os.Setenv("PATH", "/usr/bin:/bin:/sbin")
	if err := link(&control.Link{Name: "lo"}); err != nil {
		return err
	}
	line, _ := os.ReadFile("/proc/cmdline")
	for word := range strings.FieldsSeq(string(line)) {
		if devices, ok := strings.CutPrefix(word, "shell="); ok {
			rom, data, _ := strings.Cut(devices, ",")
			return shell(rom, data)
		}
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	return serve(port)
}

func agent(address string) error {
	// What is started leaves what it says there.
	if err := os.MkdirAll("/run", 0o755); err != nil {
		return err
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	return serve(c)
}

// serve does what is asked for until it is to halt.
func serve(port io.ReadWriter) error {
	s := &server{out: json.NewEncoder(port), processes: map[int]*exec.Cmd{}}
	in := json.NewDecoder(port)
	s.out.Encode(&control.Answer{}) // ready
	for {
		var r control.Request
		if err := in.Decode(&r); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if r.Halt {
			return nil
		}
		go func() {
			a, err := s.do(&r)
			if a == nil {
				a = &control.Answer{}
			}
			if err != nil {
				a.Error = err.Error()
			}
			a.ID = r.ID
			s.mu.Lock()
			s.out.Encode(a)
			s.mu.Unlock()
		}()
	}
}

// openPort opens the port when the kernel has found it.
func openPort() (*os.File, error) {
	for range 1000 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, _ := os.ReadFile(n); strings.TrimSpace(string(b)) == control.Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("there is no port " + control.Port)
}

// halt ends QEMU, which was told not to reboot; malta cannot power itself off.
func halt() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

type server struct {
	mu        sync.Mutex
	out       *json.Encoder
	processes map[int]*exec.Cmd
}

func (s *server) do(r *control.Request) (*control.Answer, error) {
	switch {
	case r.Run != nil:
		return s.run(r.Run)
	case r.Kill != nil:
		return s.kill(r.Kill)
	case r.Read != "":
		return read(r.Read)
	case r.Write != nil:
		return nil, write(r.Write)
	case r.Mount != nil:
		return nil, mount(r.Mount)
	case r.Link != nil:
		return nil, link(r.Link)
	case r.Module != "":
		return nil, module(r.Module)
	case r.Statfs != "":
		var st unix.Statfs_t
		err := unix.Statfs(r.Statfs, &st)
		return &control.Answer{Bytes: int64(st.Bavail) * int64(st.Bsize)}, err
	case r.Masquerade != "":
		return nil, masquerade(r.Masquerade)
	case r.UBI != nil:
		return nil, attach(r.UBI)
	case r.Clock != 0:
		tv := unix.NsecToTimeval(r.Clock * 1e9)
		return nil, unix.Settimeofday(&tv)
	}
	return nil, nil // asked only whether we are there
}

func (s *server) run(r *control.Run) (*control.Answer, error) {
	c := exec.Command(r.Args[0], r.Args[1:]...)
	c.Env = append(os.Environ(), r.Env...)
	if r.Root != "" {
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: r.Root}
		c.Path, c.Err, c.Dir = r.Args[0], nil, "/"
	}
	if r.Start {
		return s.start(c)
	}
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(r.In), &out, &errs
	err := c.Run()
	if c.ProcessState == nil {
		return nil, err
	}
	return &control.Answer{Out: out.Bytes(), Err: errs.Bytes(), Code: code(c), CPU: cpu(c)}, nil
}

// cpu is exact: the kernel scales what its ticks say of user and system to the sum.
func cpu(c *exec.Cmd) float64 {
	return (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
}

func code(c *exec.Cmd) int {
	if st := c.ProcessState.Sys().(syscall.WaitStatus); st.Signaled() {
		return 128 + int(st.Signal())
	}
	return c.ProcessState.ExitCode()
}

func (s *server) start(c *exec.Cmd) (*control.Answer, error) {
	out, err := os.CreateTemp("/run", "out")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errs, err := os.CreateTemp("/run", "err")
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	c.Stdout, c.Stderr = out, errs
	if err := c.Start(); err != nil {
		return nil, err
	}
	pid := c.Process.Pid
	s.mu.Lock()
	s.processes[pid] = c
	s.mu.Unlock()
	err = errors.Join(os.Rename(out.Name(), fmt.Sprintf("/run/%d.out", pid)), os.Rename(errs.Name(), fmt.Sprintf("/run/%d.err", pid)))
	return &control.Answer{Pid: pid}, err
}

func (s *server) kill(k *control.Kill) (*control.Answer, error) {
	s.mu.Lock()
	c := s.processes[k.Pid]
	s.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("process %d was not started here", k.Pid)
	}
	if k.Signal == 0 { // does it run?
		var info unix.Siginfo
		if err := unix.Waitid(unix.P_PID, k.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
			return nil, err
		}
		if info.Signo != 0 {
			return nil, fmt.Errorf("process %d has ended", k.Pid)
		}
		return nil, nil
	}
	if err := c.Process.Signal(syscall.Signal(k.Signal)); err != nil || !k.Wait {
		return nil, err
	}
	c.Wait()
	s.mu.Lock()
	delete(s.processes, k.Pid)
	s.mu.Unlock()
	return &control.Answer{Code: code(c), CPU: cpu(c)}, nil
}

func read(path string) (*control.Answer, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		entries, err := os.ReadDir(path)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return &control.Answer{Out: []byte(strings.Join(names, "\n"))}, err
	}
	b, err := os.ReadFile(path)
	return &control.Answer{Out: b}, err
}

func write(w *control.Write) error {
	if err := os.MkdirAll(filepath.Dir(w.Path), 0o755); err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if w.Add {
		flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	}
	f, err := os.OpenFile(w.Path, flags, os.FileMode(w.Mode))
	if err != nil {
		return err
	}
	for range max(w.Times, 1) {
		if _, err = f.Write(w.Data); err != nil {
			break
		}
	}
	return errors.Join(err, f.Close())
}

func mount(m *control.Mount) error {
	if m.Type == "" {
		return unix.Unmount(m.Target, 0)
	}
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return err
	}
	flags := uintptr(0)
	switch m.Type {
	case "bind":
		flags = unix.MS_BIND
	case "remount":
		flags = unix.MS_REMOUNT
	case "squashfs":
		flags = unix.MS_RDONLY
	case "overlay":
		for option := range strings.SplitSeq(m.Options, ",") {
			if name, folder, _ := strings.Cut(option, "="); name == "upperdir" || name == "workdir" {
				if err := os.MkdirAll(folder, 0o755); err != nil {
					return err
				}
			}
		}
	}
	if err := unix.Mount(m.Source, m.Target, m.Type, flags, m.Options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
	}
	return nil
}

// module loads one that the image has.
func module(words string) error {
	name, parameters, _ := strings.Cut(words, " ")
	f, err := os.Open("/modules/" + name + ".ko")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), parameters, 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", words, err)
	}
	return nil
}
