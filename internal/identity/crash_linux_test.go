// SPDX-License-Identifier: BSD-3-Clause

// Under qemu-user there is no strace, and a program of another machine is not
// started so simply.
//go:build !mips && !mipsle && !mips64 && !mips64le

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// helper returns a command that does one thing to a store, behind the words
// before it.
func helper(t *testing.T, dir, verb string, before ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(before, self)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), helperVerb+"="+verb, helperDir+"="+dir,
		helperText+"="+string(fixed(5).AppendText(nil)), "GOCOVERDIR="+t.TempDir(),
		"GORACE=atexit_sleep_ms=0") // not a second for each under -race
	return cmd
}

func strace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		missingTool(t, "strace (Debian: strace): %v", err)
	}
	return path
}

// The helper is killed at the first, second, third... of each of its system
// calls, until there are no more.
func TestAKillLeavesTheOldKeyOrTheNewOne(t *testing.T) {
	strace := strace(t)
	for _, c := range []struct {
		name, verb string
		before     *Identity
	}{
		{"creation", "create", nil},
		{"rotation", "rotate", fixed(1)},
		{"import", "import", fixed(1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			kills, ends := 0, map[string]int{}
			for _, call := range []string{
				"openat", "write", "pwrite64", "fsync", "?rename,?renameat,?renameat2", "?fchmod", "close",
				"?unlink,?unlinkat", "?mkdir,?mkdirat", "flock", "memfd_create", "munmap",
			} {
				for n := 1; ; n++ {
					s := Open(filepath.Join(t.TempDir(), "state"))
					if c.before != nil {
						mustImport(t, s, c.before)
					}
					inject := fmt.Sprintf("--inject=%s:signal=KILL:when=%d", call, n)
					out, err := helper(t, s.dir, c.verb, strace, "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", inject[2:]).CombinedOutput()
					killed := false
					if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
						killed = exit.Sys().(syscall.WaitStatus).Signaled() || exit.ExitCode() == 128+int(syscall.SIGKILL)
					}
					if err != nil && !killed {
						t.Fatalf("%s: %v: %s", inject, err, out)
					}
					end := ""
					switch id, err := s.Load(); {
					case errors.Is(err, ErrNone) && c.before == nil && killed:
						end = "none"
					case err != nil:
						t.Fatalf("%s, killed: %t: %v", inject, killed, err)
					case c.before != nil && id.equal(c.before) && killed:
						end = "old"
					case c.verb == "create" && len(id.Succession) == 0,
						c.verb == "rotate" && id.Endorsement().Old == c.before.Public(),
						c.verb == "import" && id.equal(fixed(5)):
						end = "new"
					default:
						t.Fatalf("%s, killed: %t: key %s", inject, killed, id.Public())
					}
					goesOn(t, s, fmt.Sprintf("%s (%s)", end, inject))
					if !killed {
						break
					}
					kills++
					ends[end]++
				}
			}
			t.Logf("%d kills: %v", kills, ends)
			if kills < 20 || ends["new"] == 0 || ends["old"]+ends["none"] == 0 {
				t.Errorf("%d kills that end so: %v; they do not prove much", kills, ends)
			}
		})
	}
}

// traced runs the helper and returns what it asked of the kernel about files in
// the folder, and about files in RAM.
func traced(t *testing.T, dir, verb, calls string) []string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	// -ff: a file for each thread, so that no line is torn by another's.
	if text, err := helper(t, dir, verb, strace(t), "-ff", "-y", "-qq", "-s", "0", "-e", "trace="+calls, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", verb, err, text)
	}
	files, err := filepath.Glob(out + ".*")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, dir) || strings.Contains(line, "memfd:") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// JFFS2 refuses a writable shared mapping: no file in the folder is mapped at
// all.
func TestNoFileOnTheFlashIsMapped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	for _, verb := range []string{"create", "load", "rotate", "import"} {
		ram := 0
		for _, line := range traced(t, dir, verb, "?mmap,?mmap2") {
			if strings.Contains(line, dir) {
				t.Errorf("%s: %s", verb, line)
			}
			if strings.Contains(line, "memfd:") {
				ram++
			}
		}
		if ram == 0 {
			t.Errorf("%s: no mapping is seen, not even in RAM", verb)
		}
	}
}

// The steps that the model of power cuts works on are those that the kernel
// sees, in their order.
func TestTheKernelSeesTheStepsInTheirOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	word := regexp.MustCompile(`^(\w+)\(.* = (-?\d+)`)
	for _, verb := range []string{"create", "rotate"} {
		var got []string
		written := 0
		for _, line := range traced(t, dir, verb, "openat,write,?pwrite64,?writev,?ftruncate,fsync,?fdatasync,?rename,?renameat,?renameat2,?unlink,?unlinkat,?mkdir,?mkdirat,?fchmod,?link,?linkat,?symlinkat") {
			m := word.FindStringSubmatch(line)
			if m == nil || !strings.Contains(line, dir) {
				continue
			}
			call := strings.TrimRight(m[1], "2")
			switch {
			case m[1] == "openat" && !strings.Contains(line, "O_CREAT"), m[1] == "unlinkat":
				continue // reads; and the attempt to remove what a cut left
			case m[1] == "openat" && !strings.Contains(line, "O_EXCL"):
				t.Errorf("%s: %s", verb, line)
			case m[1] == "write":
				n, err := strconv.Atoi(m[2])
				if err != nil {
					t.Fatal(err)
				}
				written += n
			}
			switch {
			case strings.HasPrefix(call, "rename"), strings.HasPrefix(call, "mkdir"):
				call = strings.TrimSuffix(call, "at")
			case strings.Contains(line, "identity.db.tmp"):
				call += " file"
			default:
				call += " folder"
			}
			got = append(got, call)
		}
		want := []string{"openat file", "fchmod file", "write file", "fsync file", "rename", "fsync folder"}
		if verb == "create" {
			want = append([]string{"mkdir"}, want...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", verb, diff)
		}
		t.Logf("%s: %d bytes", verb, written)
		if written == 0 || written > 6500 {
			t.Errorf("%s: %d bytes are written", verb, written)
		}
	}
}

func TestEightProcessesMakeOneKey(t *testing.T) {
	for range 5 {
		dir := filepath.Join(t.TempDir(), "state")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var cmds [8]*exec.Cmd
		var outs [8]bytes.Buffer
		for i := range cmds {
			cmds[i] = helper(t, dir, "create")
			cmds[i].Stdin, cmds[i].Stdout, cmds[i].Stderr = r, &outs[i], os.Stderr
			if err := cmds[i].Start(); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		w.Close() // go
		for _, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
		want := mustLoad(t, Open(dir)).Public().String() + "\n"
		for i := range outs {
			if got := outs[i].String(); got != want {
				t.Errorf("process %d has %q, the file %q", i, got, want)
			}
		}
	}
}

func TestEightGoroutinesAndProcessesLoseNoRotation(t *testing.T) {
	s := Open(t.TempDir())
	mustImport(t, s, fixed(0))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				if _, err := s.Rotate(); err != nil {
					t.Error(err)
				}
			} else if out, err := helper(t, s.dir, "rotate").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
	if id := mustLoad(t, s); len(id.Succession) != 8 || id.Succession[0].Old != fixed(0).Public() {
		t.Errorf("%d endorsements", len(id.Succession))
	}
}
