// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/tracer"
)

// usePosting sets up HTTP, and encryption.
func (d *daemon) usePosting() {
	c := d.config
	if c.Seal != sender.SealNever {
		d.sender.Seal(c.Seal, c.SealKeys)
		d.signer.most = tracer.MaxMessage - tracer.SealOverhead
		d.pins.path = filepath.Join(c.StateDir, "recipients")
		pins, err := readPins(d.pins.path, time.Now())
		if err != nil {
			d.log.Printf("%v: the keys of recipients are learnt anew", err)
		}
		d.sender.Pin(pins)
	}
	if !c.SendHTTP && !c.SendHTTPS {
		return
	}
	log.SetOutput(io.Discard) // where net/http complains of what strangers send
	if c.SendHTTPS && !c.TrustAny {
		if pool, err := x509.SystemCertPool(); err != nil || pool.Equal(x509.NewCertPool()) {
			d.log.Print("there are no certificates of authorities: HTTPS will reach nobody (OpenWrt: install ca-bundle)")
		}
	}
	w := sender.NewWeb(c.SendHTTPS, c.SendHTTP, c.TrustAny)
	d.sender.UseWeb(w)
	d.posted = w.Done()
}

// serveWanting has those told more often that asked for it.
func (d *daemon) serveWanting() {
	all, changed := d.sender.Wanting()
	if !changed {
		return
	}
	var set prefix.Builder
	for _, a := range all {
		set.Add(netip.PrefixFrom(a, a.BitLen()))
	}
	d.known.wanted.Store(set.Set())
	if len(all) == 0 {
		d.known.wanted.Store(nil)
	}
}

// pinned is where the keys that recipients told are kept.
type pinned struct {
	path   string // "" if nowhere
	failed string // as it was said
	dirty  bool
	// forgotten keys, as it was said, and when.
	forgotten uint64
	said      time.Time
}

// pinsEvery keeps it, beside the ledger, to what may be written to flash.
const pinsEvery = 24 * time.Hour

// keepPins writes the keys if any changed: at most once a day, by the time of the file,
// and when the program ends.
func (d *daemon) keepPins(end bool) {
	p := &d.pins
	if p.path == "" {
		return
	}
	pins, changed := d.sender.Pins()
	n, forgotten := d.sender.Pinned()
	if forgotten != p.forgotten && (end || time.Since(p.said) > time.Hour) {
		d.log.Printf("%s of recipients forgotten: nothing confirmed them for 30 days, they were refused, or newer ones took their place; without --seal require these recipients are told openly until they tell a key again",
			many(forgotten-p.forgotten, "key"))
		p.forgotten, p.said = forgotten, time.Now()
	}
	if end && n > len(pins) {
		d.log.Printf("%s of recipients not kept, as there are more than %d", many(uint64(n-len(pins)), "key"), len(pins))
	}
	if p.dirty = p.dirty || changed; !p.dirty {
		return
	}
	if info, err := os.Stat(p.path); err == nil && !end {
		if age := time.Since(info.ModTime()); age >= 0 && age < pinsEvery {
			return
		}
	}
	if err := identity.Replace(p.path, appendPins(nil, pins, time.Now())); err != nil {
		if err.Error() != p.failed {
			p.failed = err.Error()
			d.log.Printf("keep the keys of recipients: %v", err)
		}
		return
	}
	p.dirty, p.failed = false, ""
}

// appendPins writes a line for each: address, key, key of its receipts or -, and when
// that was last confirmed, in Unix seconds.
func appendPins(b []byte, pins []sender.Pin, now time.Time) []byte {
	for _, p := range pins {
		signer := "-"
		if p.Signer != (tracer.PublicKey{}) {
			signer = p.Signer.String()
		}
		b = fmt.Appendf(b, "%s %s %s %d\n", p.Addr, p.Seal, signer, now.Add(-p.Age).Unix())
	}
	return b
}

// readPins reads what appendPins wrote. No file is none; a line that is none is an
// error, and those before it hold.
func readPins(path string, now time.Time) (pins []sender.Pin, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 4 {
			return pins, fmt.Errorf("%s: %q has not four words", path, line)
		}
		var p sender.Pin
		var errs [4]error
		p.Addr, errs[0] = netip.ParseAddr(words[0])
		p.Seal, errs[1] = tracer.ParseSealKey(words[1])
		if words[2] != "-" {
			p.Signer, errs[2] = tracer.ParseKey(words[2])
		}
		var at int64
		at, errs[3] = strconv.ParseInt(words[3], 10, 64)
		if err := errors.Join(errs[:]...); err != nil {
			return pins, fmt.Errorf("%s: %w", path, err)
		}
		p.Age = max(now.Sub(time.Unix(at, 0)), 0) // the clock may not be set yet
		pins = append(pins, p)
	}
	return pins, nil
}

func (d *daemon) postingJSON(o *object) {
	n := &d.sender.Counters
	o.uint("receipts", n.Receipts)
	o.uint("stopped", n.Stopped)
	o.uint("sealed", n.Sealed)
	o.uint("unsealed", n.Unsealed)
	o.uint("impostors", n.Impostors)
	_, forgotten := d.sender.Pinned()
	o.uint("forgotten", forgotten)
	o.uint("posted", n.Posted)
	o.uint("unposted", n.Unposted)
	o.uint("left_alone", n.LeftAlone)
}

func (d *daemon) postingText(line func(name, format string, args ...any)) {
	n := &d.sender.Counters
	if n.Receipts > 0 {
		line("", "%s answered; %s not told, as they asked us to stop", many(n.Receipts, "tracer"), many(n.Stopped, "end"))
	}
	if n.Posted+n.Unposted > 0 {
		line("", "%s posted by HTTPS or HTTP, %s not taken", grouped(n.Posted), many(n.Unposted, "attempt"))
	}
	if n.Sealed > 0 {
		line("", "%s sealed", grouped(n.Sealed))
	}
	if n.Impostors > 0 {
		line("", "%s of a recipient had another signature than before: its key is kept", many(n.Impostors, "receipt"))
	}
}
