// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"crypto/x509"
	"io"
	"log"

	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/tracer"
)

// usePosting sets up HTTP, and encryption.
func (d *daemon) usePosting() {
	c := d.config
	if c.Seal != sender.SealNever {
		d.sender.Seal(c.Seal, c.SealKeys)
		d.signer.most = tracer.MaxMessage - tracer.SealOverhead
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

func (d *daemon) postingJSON(o *object) {
	n := &d.sender.Counters
	o.uint("sealed", n.Sealed)
	o.uint("unsealed", n.Unsealed)
	o.uint("impostors", n.Impostors)
	o.uint("posted", n.Posted)
	o.uint("unposted", n.Unposted)
	o.uint("left_alone", n.LeftAlone)
}

func (d *daemon) postingText(line func(name, format string, args ...any)) {
	n := &d.sender.Counters
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
