// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/report"
	"github.com/overflowd/overflowd/internal/receiver/server"
	"github.com/overflowd/overflowd/internal/receiver/store"
	"github.com/overflowd/overflowd/internal/tracer"
)

// parseSpan reads a duration, in days too.
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err == nil && n > 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, usage{fmt.Errorf("--since %q is not a span as 90m, 24h or 7d", text)}
	}
	return d, nil
}

func reportCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	fs, state := flags("report")
	var to list
	fs.Var(&to, "to", "")
	since, format := fs.String("since", "1h", ""), fs.String("format", "text", "")
	org, email := fs.String("org", "", ""), fs.String("email", "", "")
	files, err := parse(fs, args)
	if err != nil {
		return err
	}
	mine, err := prefixes(to)
	if err != nil {
		return err
	}
	span, err := parseSpan(*since)
	if err != nil {
		return err
	}
	write := writers[*format]
	if write == nil {
		return usage{fmt.Errorf("--format %q is none of text, json, html, mail and xarf", *format)}
	}
	by := report.Complainant{}
	if *email != "" {
		if by, err = report.NewComplainant(*org, *email); err != nil {
			return usage{fmt.Errorf("--email %w", err)}
		}
	} else if *format == "xarf" {
		return usage{errors.New("--format xarf needs --email: who complains")}
	}
	now := time.Now()
	p := &progress{out: stderr, began: now}
	defer p.end()
	start := now.Add(-span)
	b := report.NewBuilder(server.Mine(mine), to, start, now)
	if len(files) > 0 {
		f := &fileReader{ctx: ctx, start: start, now: now, builder: b, progress: p, stderr: stderr, mine: server.Mine(mine), seen: map[[40]byte]bool{}}
		for _, name := range files {
			if err := f.file(name, stdin); err != nil {
				return err
			}
		}
		f.say()
	} else if err := fromStore(ctx, *state, start, b, p, stderr); err != nil {
		return err
	}
	p.end()
	text, err := write(b.Report(), by)
	if err != nil {
		return err
	}
	_, err = stdout.Write(text)
	return err
}

// fromStore adds what is kept.
func fromStore(ctx context.Context, state string, start time.Time, b *report.Builder, p *progress, stderr io.Writer) error {
	dir, err := stateDir(state)
	if err != nil {
		return err
	}
	l, err := ledger(dir)
	if err != nil {
		fmt.Fprintf(stderr, "overflow-receiver: %v: the standing is that of when each tracer came\n", err)
		l = receiver.NewLedger(8)
	}
	b.Level = func(k tracer.PublicKey) (receiver.Level, bool) {
		e := l.Find(k)
		if e == nil {
			return 0, false
		}
		return e.Level(), true
	}
	err = store.Read(ctx, dir, start, p.told, func(x *receiver.Received) error {
		b.Add(x)
		return nil
	})
	var damaged store.Damaged
	if errors.As(err, &damaged) {
		p.end()
		fmt.Fprintf(stderr, "overflow-receiver: %v and left out\n", err)
		return nil
	}
	return err
}

// writers write the formats.
var writers = map[string]func(*report.Report, report.Complainant) ([]byte, error){
	"text": func(r *report.Report, _ report.Complainant) ([]byte, error) { return r.Text(), nil },
	"json": func(r *report.Report, _ report.Complainant) ([]byte, error) { return r.JSON() },
	"html": func(r *report.Report, _ report.Complainant) ([]byte, error) { return server.HTML(r, version) },
	"mail": func(r *report.Report, by report.Complainant) ([]byte, error) {
		return each(r, func(a *report.Attack, c *report.Carrier) []byte { return a.Mail(c, by) }, "\n"), nil
	},
	"xarf": func(r *report.Report, by report.Complainant) ([]byte, error) {
		return each(r, func(a *report.Attack, c *report.Carrier) []byte { return a.XARF(c, by) }, ""), nil
	},
}

// each puts together what is made for each carrier of each attack.
func each(r *report.Report, one func(*report.Attack, *report.Carrier) []byte, between string) []byte {
	var b bytes.Buffer
	for _, attacks := range [][]*report.Attack{r.Attacks, r.InOurName} {
		for _, a := range attacks {
			for _, c := range a.Carriers {
				x := one(a, c)
				if len(x) > 0 && b.Len() > 0 {
					b.WriteString(between)
				}
				b.Write(x)
			}
		}
	}
	return b.Bytes()
}

// fileReader reads files of tracers as others have kept them. Their standing is
// not known, nor from where they came.
type fileReader struct {
	ctx      context.Context
	start    time.Time
	now      time.Time
	builder  *report.Builder
	progress *progress
	stderr   io.Writer
	mine     func(netip.Addr) bool
	seen     map[[40]byte]bool // key and nonce
	bad      int
	repeated int
	first    string
}

func (f *fileReader) file(name string, stdin io.Reader) error {
	in, size := stdin, int64(0)
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		if info, err := file.Stat(); err == nil {
			size = info.Size()
		}
		in = file
	}
	r := bufio.NewReaderSize(in, tracer.MaxLine+2)
	if head, _ := r.Peek(8); tracer.IsDatagram(head) {
		datagram, err := io.ReadAll(io.LimitReader(r, tracer.MaxDatagram+1))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		signed, err := tracer.ParseDatagram(datagram)
		f.one(name, signed, err)
		return nil
	}
	read := int64(0)
	for n := 1; ; n++ {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		line, err := r.ReadSlice('\n')
		read += int64(len(line))
		place := fmt.Sprintf("%s:%d", name, n)
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = r.ReadSlice('\n')
				read += int64(len(line))
			}
			f.one(place, tracer.Signed{}, tracer.ErrTooLarge)
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			signed, err := tracer.ParseLine(line)
			f.one(place, signed, err)
		}
		if size > 0 {
			f.progress.told(min(read, size), size)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// one adds a tracer. In a file nothing tells when it came: the time that it was
// made stands for that.
func (f *fileReader) one(place string, signed tracer.Signed, err error) {
	var m *tracer.Message
	if err == nil {
		m, err = signed.Open()
	}
	if err == nil && m.To.IsValid() && m.To != m.Flow.SrcAddr() && m.To != m.Flow.DstAddr() {
		err = receiver.NotEnd
	}
	if err != nil {
		if f.bad++; f.bad == 1 {
			f.first = fmt.Sprintf("%s: %v", place, err)
		}
		return
	}
	if !f.mine(m.To) {
		return
	}
	id := [40]byte(append(append(make([]byte, 0, 40), signed.Key[:]...), m.Nonce[:]...))
	if f.seen[id] {
		f.repeated++
		return
	}
	f.seen[id] = true
	f.builder.Add(&receiver.Received{Message: m, Signed: signed, Hops: -1, Arrived: time.UnixMilli(m.Time)})
}

func (f *fileReader) say() {
	f.progress.end()
	if f.bad > 0 {
		fmt.Fprintf(f.stderr, "overflow-receiver: %d that are no valid tracers were left out; the first: %s\n", f.bad, f.first)
	}
	if f.repeated > 0 {
		fmt.Fprintf(f.stderr, "overflow-receiver: %d that were there before were left out\n", f.repeated)
	}
}

// progress says on a terminal how far reading is, from the second second on.
type progress struct {
	out   io.Writer
	began time.Time
	last  time.Time
	n     int
	said  bool
}

func (p *progress) told(read, all int64) {
	if p.n++; p.n%1000 != 0 || all == 0 {
		return
	}
	now := time.Now()
	if now.Sub(p.began) < time.Second || now.Sub(p.last) < 200*time.Millisecond {
		return
	}
	p.last, p.said = now, true
	fmt.Fprintf(p.out, "\rreading: %d %% of %d MB", 100*read/all, all>>20)
}

// end ends the line of the progress.
func (p *progress) end() {
	if p.said {
		fmt.Fprint(p.out, "\r\033[K")
		p.said = false
	}
}
