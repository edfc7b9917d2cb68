// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/identity"
)

func key(args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return usage{errors.New("key: say show, export, import, rotate or recipient")}
	}
	verb, args := args[0], args[1:]
	fs := config.FlagSet("key")
	state := config.StateFlag(fs)
	replace, rotate := new(bool), new(bool)
	switch verb {
	case "import":
		replace = fs.Bool("replace", false, "")
	case "recipient":
		rotate = fs.Bool("rotate", false, "")
	case "show", "export", "rotate":
	case "-h", "-help", "--help":
		return config.ErrHelp
	default:
		return usage{fmt.Errorf("key %q: say show, export, import, rotate or recipient", verb)}
	}
	if err := fs.Parse(args); err != nil {
		return usageOrHelp(fmt.Errorf("key %s: %w", verb, err))
	}
	if fs.NArg() > 1 || fs.NArg() == 1 && verb != "import" {
		return usage{fmt.Errorf("key %s: unexpected argument %q", verb, fs.Arg(fs.NArg()-1))}
	}
	dir, err := config.StateDir(*state)
	if err != nil {
		return usage{err}
	}
	store := identity.Open(dir)
	switch verb {
	case "recipient":
		return recipientKey(dir, *rotate, stdout)
	case "import":
		return importKey(store, fs.Arg(0), *replace, stdin, stdout)
	case "rotate":
		id, err := store.Rotate()
		if err != nil {
			return explain(err)
		}
		return show(stdout, id)
	}
	id, err := store.Load()
	if err != nil {
		return explain(err)
	}
	if verb == "export" {
		_, err = stdout.Write(id.AppendText(nil))
		return err
	}
	return show(stdout, id)
}

func usageOrHelp(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return config.ErrHelp
	}
	return usage{err}
}

func explain(err error) error {
	if errors.Is(err, identity.ErrNone) {
		return fmt.Errorf("%w: it is made with the first tracer, or comes by overflowd key import", err)
	}
	return err
}

// show prints the public side of an identity.
func show(w io.Writer, id *identity.Identity) error {
	_, err := fmt.Fprintf(w, "key %s\ncreated %s\n", id.Public(), id.Created.UTC().Format(time.RFC3339))
	for i := len(id.Succession) - 1; i >= 0 && err == nil; i-- {
		e := &id.Succession[i]
		_, err = fmt.Fprintf(w, "endorsed by %s since %s\n", e.Old, time.Unix(e.Since, 0).UTC().Format(time.RFC3339))
	}
	return err
}

func importKey(store *identity.Store, name string, replace bool, stdin io.Reader, stdout io.Writer) error {
	if name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		stdin = f
	}
	text, err := io.ReadAll(io.LimitReader(stdin, identity.MaxText+1))
	if err != nil {
		return err
	}
	id, err := identity.ParseText(text)
	if err != nil {
		return fmt.Errorf("this is no export of a key: %w", err)
	}
	if err := store.Import(id, replace); err != nil {
		if errors.Is(err, identity.ErrOther) {
			return fmt.Errorf("%w: export it first, then import with --replace", err)
		}
		return err
	}
	return show(stdout, id)
}
