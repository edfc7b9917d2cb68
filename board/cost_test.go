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

// TestInstructions counts what the program computes, itself and in the kernel, with a
// clock that goes on by one nanosecond an instruction: a thing costs what a file with
// many of it takes more than one with few. It is held to a tenth more than the table.
func TestInstructions(t *testing.T) {
	table := readCosts(t)
	each(t, func(t *testing.T, b *machine.Board) {
		o := options(t, b, "overflowd-mini")
		o.ICount = true
		m := b.Start(t, o)
		m.MountRoot(b)
		key := "/etc/overflowd"
		makeKey(t, m, one(t))
		packets := func(n int) []byte {
			b, err := os.ReadFile(shortened(t, 50, n/50, 100))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		run := func(input []byte, args ...string) (float64, []byte) {
			m.Do(control.Request{Write: &control.Write{Path: "/tmp/input", Data: input, Mode: 0o644}})
			least := 0.0
			var out []byte
			for range 3 {
				a := m.Do(control.Request{Run: &control.Run{Root: machine.Root, Args: args}})
				if a.Code != 0 {
					t.Fatalf("%v: exit %d: %s", args, a.Code, a.Err)
				}
				if least == 0 || a.CPU < least {
					least, out = a.CPU, a.Out
				}
			}
			return least, out
		}
		few, many := packets(1000), packets(51_000)
		exports, moreExports := exported(t, 50), exported(t, 4050)
		none := []string{"/usr/bin/overflowd", "--state", key, "--rate", "0.000000001", "-f", "/tmp/input"}
		one := []string{"/usr/bin/overflowd", "--state", key, "--rate", "1", "-f", "/tmp/input"}
		verify := []string{"/usr/bin/overflowd", "verify", "/tmp/input"}

		measure := func(name string, things int, less, more float64) {
			got := int((more - less) * 1e9 / float64(things))
			bar := table[b.Name+" "+name]
			t.Logf("%-9s %-16s %10d instructions; the table has %d", b.Name, name, got, bar)
			if os.Getenv("RECORD") != "" {
				table[b.Name+" "+name] = got
			} else if bar == 0 || got > bar+bar/10 {
				t.Errorf("%s: %d instructions, the table has %d", name, got, bar)
			}
		}
		less, _ := run(few, none...)
		more, _ := run(many, none...)
		measure("packet", 50_000, less, more)
		less, _ = run(exports, none...)
		more, _ = run(moreExports, none...)
		measure("record", 4000*30, less, more)
		less, few20 := run(packets(50), one...)
		more, all := run(packets(100), one...)
		signed := bytes.Count(all, []byte("\n")) - bytes.Count(few20, []byte("\n"))
		if signed < 10 {
			t.Fatalf("%d tracers more", signed)
		}
		measure("tracer signed", signed, less, more)
		lines := bytes.SplitAfter(all, []byte("\n"))
		less, _ = run(bytes.Join(lines[:10], nil), verify...)
		more, _ = run(bytes.Join(lines[:40], nil), verify...)
		measure("tracer verified", 30, less, more)
	})
	if os.Getenv("RECORD") != "" {
		writeCosts(t, table)
	}
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
		for _, name := range []string{"packet", "record", "tracer signed", "tracer verified"} {
			if n := table[board+" "+name]; n > 0 {
				fmt.Fprintf(&b, "%-9s %-16s %10d\n", board, name, n)
			}
		}
	}
	if err := os.WriteFile(costs, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
