// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "netns-helper" {
		if err := runHelper(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testscript.Main(m, map[string]func(){
		"overflowd": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// capture is a command of the scripts: capture FILE [export|packet|arp N]...
// writes a capture file of so many frames of each kind, one behind the other:
// datagrams of 30 records, segments of one flow, or what is not IP.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args)%2 != 1 {
		ts.Fatalf("usage: capture file [kind number]...")
	}
	arp := make([]byte, frameSize)
	arp[12], arp[13] = 0x08, 0x06
	frames := map[string][]byte{"export": exportFrame(exportV5()), "packet": segmentFrame(45<<24|1, 1025, heavyPort), "arp": arp}
	b := captureHeader()
	for i := 1; i < len(args); i += 2 {
		n, err := strconv.Atoi(args[i+1])
		frame := frames[args[i]]
		if err != nil || frame == nil {
			ts.Fatalf("capture: %s %s", args[i], args[i+1])
		}
		for range n {
			b = appendFrame(b, frame)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

func TestScripts(t *testing.T) {
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/cli",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TESTDATA", testdata)
			return nil
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"capture": capture},
		RequireExplicitExec: true,
		ContinueOnError:     true,
	})
}
