// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/tracer"
)

// verifier reads tracers and keeps the tally per key, in the order of their
// first appearance.
type verifier struct {
	out            *bufio.Writer
	tally          map[tracer.PublicKey]*tally
	order          []tracer.PublicKey
	valid, invalid uint64
}

type tally struct {
	count       uint64
	first, last int64 // time of the tracers, ms
	endorsement *tracer.Endorsement
}

func verify(args []string, stdin io.Reader, stdout io.Writer) error {
	fs := config.FlagSet("verify")
	want := fs.String("key", "", "")
	if err := fs.Parse(args); err != nil {
		return usageOrHelp(fmt.Errorf("verify: %w", err))
	}
	v := &verifier{out: bufio.NewWriter(stdout), tally: make(map[tracer.PublicKey]*tally)}
	var trusted *tracer.PublicKey
	if *want != "" {
		key, err := tracer.ParseKey(*want)
		if err != nil {
			return usage{fmt.Errorf("--key %w", err)}
		}
		trusted = &key
	}
	if fs.NArg() == 0 {
		if err := v.stream("standard input", stdin); err != nil {
			return err
		}
	}
	for _, name := range fs.Args() {
		if err := v.file(name); err != nil {
			return err
		}
	}
	return v.report(trusted)
}

func (v *verifier) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return v.stream(name, f)
}

// stream verifies a raw datagram, or lines.
func (v *verifier) stream(name string, r io.Reader) error {
	in := bufio.NewReaderSize(r, tracer.MaxLine+2)
	if head, _ := in.Peek(8); tracer.IsDatagram(head) {
		datagram, err := io.ReadAll(io.LimitReader(in, tracer.MaxDatagram+1))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		signed, err := tracer.ParseDatagram(datagram)
		v.one(name, signed, err)
		return nil
	}
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		place := fmt.Sprintf("%s:%d", name, n)
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			v.one(place, tracer.Signed{}, tracer.ErrTooLarge)
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			signed, err := tracer.ParseLine(line)
			v.one(place, signed, err)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// one verifies one tracer that was parsed, or not.
func (v *verifier) one(place string, signed tracer.Signed, err error) {
	var m *tracer.Message
	if err == nil {
		m, err = signed.Open()
	}
	if err != nil {
		v.invalid++
		fmt.Fprintf(v.out, "%s: invalid: %v\n", place, err)
		return
	}
	v.valid++
	t := v.tally[signed.Key]
	if t == nil {
		t = &tally{first: m.Time, last: m.Time}
		v.tally[signed.Key] = t
		v.order = append(v.order, signed.Key)
	}
	t.count++
	t.first, t.last = min(t.first, m.Time), max(t.last, m.Time)
	if m.Succeeds != nil {
		t.endorsement = m.Succeeds
	}
}

// report prints the tally. It returns an error unless all was valid, and by the
// trusted key or one that it endorsed, directly or through others.
func (v *verifier) report(trusted *tracer.PublicKey) error {
	strangers := uint64(0)
	for _, key := range v.order {
		t := v.tally[key]
		fmt.Fprintf(v.out, "%d valid by %s, made %s", t.count, key, when(t.first))
		if t.last != t.first {
			fmt.Fprintf(v.out, " to %s", when(t.last))
		}
		if t.endorsement != nil {
			fmt.Fprintf(v.out, ", endorsed by %s", t.endorsement.Old)
		}
		if trusted != nil && !v.follows(key, *trusted) {
			strangers += t.count
			fmt.Fprint(v.out, ", not the key asked for nor a successor")
		}
		fmt.Fprintln(v.out)
	}
	if err := v.out.Flush(); err != nil {
		return err
	}
	switch {
	case v.invalid > 0:
		return fmt.Errorf("%d of %d tracers are invalid", v.invalid, v.valid+v.invalid)
	case v.valid == 0:
		return errors.New("there is no tracer")
	case strangers > 0:
		return fmt.Errorf("%d of %d tracers are by other keys", strangers, v.valid)
	}
	return nil
}

// follows tells whether a chain of endorsements leads from the trusted key to
// the key.
func (v *verifier) follows(key, trusted tracer.PublicKey) bool {
	for range len(v.tally) + 1 {
		if key == trusted {
			return true
		}
		t := v.tally[key]
		if t == nil || t.endorsement == nil {
			return false
		}
		key = t.endorsement.Old
	}
	return key == trusted
}

func when(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
