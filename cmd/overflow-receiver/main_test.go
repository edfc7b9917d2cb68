// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/store"
	"github.com/overflowd/overflowd/internal/tracer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"overflow-receiver": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// told makes a tracer to 203.0.113.5 with words: the key's number, and then any of
// dst=ADDR, src=ADDR, to=ADDR, age=SPAN, name=TEXT, mail=TEXT, hops=N, level=LEVEL
// and spoofed=WORD.
func told(ts *testscript.TestScript, number uint64, words []string) *receiver.Received {
	m := tracer.Tracer{Time: time.Now().UnixMilli(), Rate: 1e-6, Selected: 2, To: netip.MustParseAddr("203.0.113.5")}
	m.Flow.Family, m.Flow.Protocol, m.Flow.SrcPort, m.Flow.DstPort = flow.IPv4, 17, 53, 80
	m.Flow.Src, m.Flow.Dst = [16]byte{192, 0, 2, 7}, [16]byte{203, 0, 113, 5}
	m.Flow.Known = flow.HasPorts | flow.HasPackets | flow.HasBytes
	m.Flow.Packets, m.Flow.Bytes = 10, 10_000
	binary.BigEndian.PutUint64(m.Nonce[:], number)
	x := &receiver.Received{Hops: -1}
	key := byte(0)
	for i, w := range words {
		name, value, ok := strings.Cut(w, "=")
		switch {
		case i == 0:
			n, err := strconv.Atoi(w)
			ts.Check(err)
			key = byte(n)
		case !ok:
			ts.Fatalf("%s is no NAME=VALUE", w)
		case name == "dst" || name == "src":
			a := netip.MustParseAddr(value).As4()
			to := &m.Flow.Dst
			if name == "src" {
				to = &m.Flow.Src
			}
			copy(to[:], a[:])
		case name == "to":
			m.To = netip.MustParseAddr(value)
		case name == "age":
			d, err := time.ParseDuration(value)
			ts.Check(err)
			m.Time -= d.Milliseconds()
		case name == "name":
			m.Contact.Identity = value
		case name == "mail":
			m.Contact.Email = value
		case name == "hops":
			n, err := strconv.Atoi(value)
			ts.Check(err)
			x.Hops = n
		case name == "level":
			x.Level, _ = receiver.ParseLevel(value)
		case name == "spoofed":
			m.Spoofed = value
		}
	}
	text := m.AppendMessage(nil)
	x.Signed = tracer.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{key}, ed25519.SeedSize)), text)
	var err error
	x.Message, err = x.Signed.Open()
	ts.Check(err)
	x.Arrived = time.UnixMilli(m.Time)
	return x
}

var sequence atomic.Uint64 // scripts run at the same time

// line is a command of the scripts: line FILE WORD... adds a tracer to a file.
func line(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	_, err = f.Write(append(told(ts, sequence.Add(1), args[1:]).Signed.AppendLine(nil), '\n'))
	ts.Check(err)
	ts.Check(f.Close())
}

// keep is likewise: keep DIR WORD... adds a tracer to what is kept.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	s, err := store.Open(ts.MkAbs(args[0]), store.Limits{Size: 1 << 20})
	ts.Check(err)
	ts.Check(s.Add(told(ts, sequence.Add(1), args[1:])))
	ts.Check(s.Close())
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/cli-receiver",
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"line": line, "keep": keep},
		RequireExplicitExec: true,
		ContinueOnError:     true,
	})
}

func FuzzSpan(f *testing.F) {
	for _, s := range []string{"1h", "7d", "0d", "-1h", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseSpan(s); err == nil && d <= 0 {
			t.Errorf("%q is %v", s, d)
		}
	})
}

// TestProgressIsSaidWhenReadingTakesLong, and not before.
func TestProgressIsSaidWhenReadingTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &progress{out: &out, began: time.Now()}
		told := func() {
			for n := range int64(10_000) {
				p.told(n*10_000, 100_000_000)
			}
		}
		if told(); out.Len() != 0 {
			t.Errorf("at once: %q", out.String())
		}
		time.Sleep(2 * time.Second)
		told()
		p.end()
		p.end()
		if want := "\rreading: 9 % of 95 MB\r\033[K"; out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}
