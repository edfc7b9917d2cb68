// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/report"
	"github.com/overflowd/overflowd/internal/receiver/server"
	"github.com/overflowd/overflowd/internal/tracer"
)

// pin pins a key, or no longer. A running program sees it within seconds.
func pin(pinned bool, args []string) error {
	fs, state := flags("pin")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return usage{errors.New("the key is missing")}
	}
	key, err := tracer.ParseKey(rest[0])
	if err != nil {
		return usage{err}
	}
	dir, err := stateDir(*state)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	note := strings.Join(strings.Fields(strings.Join(rest[1:], " ")), " ")
	return server.ChangePins(filepath.Join(dir, server.PinnedFile), key, pinned, note)
}

// key makes the key of the sealed form, if there is none or it is to be another, and
// shows it.
func key(args []string, stdout io.Writer) error {
	fs, state := flags("key")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 1 || len(rest) == 1 && rest[0] != "rotate" {
		return usage{fmt.Errorf("key: unexpected argument %q", rest[len(rest)-1])}
	}
	dir, err := stateDir(*state)
	if err != nil {
		return err
	}
	all, err := receiver.SealKeysOf(dir, len(rest) > 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, all.Key())
	return err
}

// maxKeys of a ledger that is only read.
const maxKeys = 1 << 22

// ledger reads the ledger of a state's folder, with what is pinned.
func ledger(dir string) (*receiver.Ledger, error) {
	l, err := receiver.LoadLedger(filepath.Join(dir, server.LedgerFile), maxKeys)
	if err != nil {
		return l, err
	}
	pins, err := server.ReadPins(filepath.Join(dir, server.PinnedFile))
	for k := range pins {
		l.Pin(k, true, time.Now().UnixMilli())
	}
	return l, err
}

// keys lists what is known of keys.
func keys(args []string, stdout io.Writer) error {
	fs, state := flags("keys")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usage{fmt.Errorf("keys: unexpected argument %q", rest[0])}
	}
	dir, err := stateDir(*state)
	if err != nil {
		return err
	}
	l, err := ledger(dir)
	if err != nil {
		return err
	}
	var all []*receiver.Entry
	l.All(func(e *receiver.Entry) { all = append(all, e) })
	slices.SortFunc(all, func(a, b *receiver.Entry) int {
		return cmp.Or(cmp.Compare(b.Level(), a.Level()), cmp.Compare(b.Count, a.Count), slices.Compare(a.Key[:], b.Key[:]))
	})
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tTRUST\tTRACERS\tFIRST\tLAST\tNETWORKS\tCONFLICTS\tCONTACT")
	for _, e := range all {
		contact := report.ContactOf(&e.Contact)
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%s\n", e.Key, e.Level(), e.Count, report.Stamp(time.UnixMilli(e.First)), report.Stamp(time.UnixMilli(e.Last)),
			e.Networks, e.Conflicts, strings.TrimSpace(contact.Identity+" "+contact.Line()))
	}
	w.Flush()
	_, err = stdout.Write(b.Bytes())
	return err
}
