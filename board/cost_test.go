// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// costs is the table of what was measured: for each board and each thing the
// instructions of one, the smallest of three. RECORD=1 writes it anew.
const costs = "instructions"

// things are what is counted.
var things = []string{"packet", "record", "tracer signed", "tracer verified"}

// TestInstructions counts what the program computes, itself and in the kernel, with a
// clock that goes on by one nanosecond an instruction: a thing costs what a file with
// many of it takes more than one with few. It is held to a tenth more than the table.
func TestInstructions(t *testing.T) {
	table := readCosts(t)
	each(t, func(t *testing.T, b *machine.Board) {
		costs := count(t, b)
		for _, name := range things {
			got := costs[name]
			bar := table[b.Name+" "+name]
			t.Logf("%-9s %-16s %10d instructions; the table has %d", b.Name, name, got, bar)
			if os.Getenv("RECORD") != "" {
				table[b.Name+" "+name] = got
			} else if bar == 0 || got > bar+bar/10 {
				t.Errorf("%s: %d instructions, the table has %d", name, got, bar)
			}
		}
	})
	if os.Getenv("RECORD") != "" {
		writeCosts(t, table)
	}
}

// count returns what each thing costs on a board.
func count(t *testing.T, b *machine.Board) map[string]int {
	o := options(t, b, "overflowd-mini")
	o.ICount, o.Memory = true, 128
	m := b.Start(t, o)
	m.MountRoot(b)
	key := "/etc/overflowd"
	makeKey(t, m, one(t))
	// least returns the least seconds that the program with the arguments takes for a
	// pcap file whose packets are there so many times, and what it says then. The Go
	// runtime does not collect: whether it does once more or less is chance.
	least := func(file []byte, times int, args ...string) (least float64, out []byte) {
		header, packets := file[:0], file
		if times > 1 {
			header, packets = file[:24], file[24:]
		}
		m.Do(control.Request{Write: &control.Write{Path: "/tmp/input", Data: header, Mode: 0o644}})
		m.Do(control.Request{Write: &control.Write{Path: "/tmp/input", Data: packets, Times: times, Add: true}})
		for range 3 {
			a := m.Do(control.Request{Run: &control.Run{Root: machine.Root, Args: args, Env: []string{"GOGC=off"}}})
			if a.Code != 0 {
				t.Fatalf("%v: exit %d: %s", args, a.Code, a.Err)
			}
			if least == 0 || a.CPU < least {
				least, out = a.CPU, a.Out
			}
		}
		return least, out
	}
	packets, err := os.ReadFile(shortened(t, 50, 20, 100)) // 1,000
	if err != nil {
		t.Fatal(err)
	}
	tracers, err := os.ReadFile(shortened(t, 50, 4, 100))
	if err != nil {
		t.Fatal(err)
	}
	exports := exported(t, 50) // 1,500 records
	none := []string{"/usr/bin/overflowd", "--state", key, "--rate", "0.000000001", "-f", "/tmp/input"}
	one := []string{"/usr/bin/overflowd", "--state", key, "--rate", "1", "-f", "/tmp/input"}
	verify := []string{"/usr/bin/overflowd", "verify", "/tmp/input"}

	costs := map[string]int{}
	cost := func(name string, number int, less, more float64) {
		costs[name] = int((more - less) * 1e9 / float64(number))
	}
	less, _ := least(packets, 1, none...)
	more, _ := least(packets, 101, none...)
	cost("packet", 100_000, less, more)
	less, _ = least(exports, 1, none...)
	more, _ = least(exports, 201, none...)
	cost("record", 300_000, less, more)
	more, all := least(tracers, 1, one...)
	less, few := least(tracers[:24+50*(16+100)], 1, one...)
	lines := bytes.SplitAfter(bytes.TrimSpace(all), []byte("\n"))
	signed := len(lines) - bytes.Count(few, []byte("\n"))
	if signed < 100 {
		t.Fatalf("%d tracers more", signed)
	}
	cost("tracer signed", signed, less, more)
	less, _ = least(bytes.Join(lines[:10], nil), 1, verify...)
	more, _ = least(bytes.Join(lines[:40], nil), 1, verify...)
	cost("tracer verified", 30, less, more)
	return costs
}

func readCosts(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(costs)
	if err != nil && os.Getenv("RECORD") == "" {
		t.Fatal(err)
	}
	table := map[string]int{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] == "#" {
			continue
		}
		n, err := strconv.Atoi(words[len(words)-1])
		if err != nil {
			t.Fatalf("%s: %v", costs, err)
		}
		table[strings.Join(words[:len(words)-1], " ")] = n
	}
	return table
}

func writeCosts(t *testing.T, table map[string]int) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("# Instructions of a packet or an export record read from a file, and of a tracer signed\n# or verified, on each board, user and kernel: cd board && RECORD=1 go test -run Instructions .\n")
	for _, board := range machine.Boards {
		for _, name := range things {
			if n := table[board+" "+name]; n > 0 {
				fmt.Fprintf(&b, "%-9s %-16s %10d\n", board, name, n)
			}
		}
	}
	if err := os.WriteFile(costs, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
