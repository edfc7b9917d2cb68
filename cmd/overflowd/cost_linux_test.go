// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// exportFile writes a capture of n full NetFlow v5 datagrams, on Ethernet.
func exportFile(t *testing.T, n int) string {
	const size = 24 + 30*48
	frame := make([]byte, 14+20+8+size)
	frame[12] = 0x08
	ip := frame[14:]
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], 20+8+size)
	binary.BigEndian.PutUint16(ip[24:], 8+size)
	export := ip[28:]
	export[1], export[3] = 5, 30
	for i := range 30 {
		r := export[24+48*i:]
		copy(r, []byte{45, 83, 0, byte(i), 91, 200, 16, 2})
		binary.BigEndian.PutUint32(r[16:], 36)
		binary.BigEndian.PutUint32(r[20:], 26000)
	}
	b := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = append(b, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0)
	for range n {
		b = append(b, 0, 0, 0, 0x60, 0, 0, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
		b = append(b, frame...)
	}
	name := filepath.Join(t.TempDir(), "export.pcap")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func buildRelease(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "overflowd")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestBudgetOfInstructions counts what a flow record costs from the file to the
// selector, as valgrind sees it: a difference of two files, so that the start is
// not in it.
func TestBudgetOfInstructions(t *testing.T) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	program := buildRelease(t)
	count := func(datagrams int) int {
		cmd := exec.Command("valgrind", "--tool=lackey", "--basic-counts=yes", program, "-f", exportFile(t, datagrams),
			"-r", "0.000000000001", "--seed", "1", "--state", t.TempDir())
		// An instruction that valgrind does not know, and Go's scheduler now and
		// then wants.
		cmd.Env = append(os.Environ(), "GODEBUG=cpu.rdtscp=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m := regexp.MustCompile(`guest instrs:\s+([0-9,]+)`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("no count: %s", out)
		}
		n, err := strconv.Atoi(strings.ReplaceAll(string(m[1]), ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const few, many = 2000, 6000
	per := float64(count(many)-count(few)) / ((many - few) * 30)
	t.Logf("%.0f instructions a record", per)
	if per > 175 || per < 20 {
		t.Errorf("%.0f instructions a record, the bar is 175", per)
	}
}

// TestBudgetOfMemory holds the resident set over a file of 300,000 records to
// its bar on amd64.
func TestBudgetOfMemory(t *testing.T) {
	capture, err := os.ReadFile(exportFile(t, 10000))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(buildRelease(t), "-f", "-", "--state", t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(capture); err != nil {
		t.Fatal(err)
	}
	// Not the rusage: it would include this program before it became that one.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no high-water mark: %s", status)
	}
	rss, _ := strconv.Atoi(string(m[1]))
	t.Logf("%d KiB", rss)
	if rss > 5<<10 {
		t.Errorf("%d KiB resident, the bar is 5 MiB", rss)
	}
}
