// SPDX-License-Identifier: BSD-3-Clause

package report

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Stamp writes a time as people in another country read it.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

var protocols = map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}

// Protocol names one of IP.
func Protocol(n uint8) string {
	if name := protocols[n]; name != "" {
		return name
	}
	return "protocol " + strconv.Itoa(int(n))
}

// Target names what is attacked.
func (a *Attack) Target() string {
	name := Protocol(a.Protocol)
	switch {
	case a.Ports > 1:
		return fmt.Sprintf("%s %s, %d ports", a.Destination, name, a.Ports)
	case a.Port == nil:
		return fmt.Sprintf("%s %s", a.Destination, name)
	case a.Protocol == 1 || a.Protocol == 58:
		return fmt.Sprintf("%s %s type %d code %d", a.Destination, name, *a.Port>>8, *a.Port&0xff)
	}
	return fmt.Sprintf("%s %s port %d", a.Destination, name, *a.Port)
}

// About writes an estimate with three digits that count.
func About(n float64) string {
	if !(n >= 0) || math.IsInf(n, 0) {
		return "?"
	}
	for _, u := range []struct {
		of   float64
		name string
	}{{1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= u.of {
			if n/u.of >= 1e6 {
				return "?" // whoever says so wants to be shown
			}
			return strconv.FormatFloat(round3(n/u.of), 'f', -1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(math.Round(n), 'f', -1, 64) + " "
}

func round3(x float64) float64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	return f
}

// Plus writes the error of an estimate.
func (e Estimate) Plus() string {
	if e.Percent >= 100 {
		return ">±100 %"
	}
	return fmt.Sprintf("±%.0f %%", math.Ceil(e.Percent))
}

// SourcesText lists the sources in a line.
func (a *Attack) SourcesText() string {
	var all []string
	for _, s := range a.Sources {
		all = append(all, s.Address.String())
	}
	if a.More > 0 {
		all = append(all, fmt.Sprintf("and %d more", a.More))
	}
	return strings.Join(all, ", ")
}

// HopsText writes the distance of a carrier.
func (c *Carrier) HopsText() string {
	switch {
	case c.Hops == nil:
		return "?"
	case *c.Hops != *c.MaxHops:
		return fmt.Sprintf("%d-%d", *c.Hops, *c.MaxHops)
	}
	return strconv.Itoa(*c.Hops)
}

// Line writes a contact in a line.
func (c Contact) Line() string {
	var all []string
	if c.Email != "" {
		all = append(all, c.Email)
	}
	if c.URL != "" {
		all = append(all, c.URL)
	}
	if c.ASN != 0 {
		all = append(all, fmt.Sprintf("AS%d", c.ASN))
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, " ")
}

// Name is what the carrier calls itself.
func (c *Carrier) Name() string {
	if c.Contact.Identity != "" {
		return c.Contact.Identity
	}
	return "-"
}

// Short is the begin of the key.
func (c *Carrier) Short() string { return c.Key[:min(16, len(c.Key))] }

// Trusted is the standing of the key in a few words.
func (c *Carrier) Trusted() string {
	if c.Shared {
		return c.Trust + ", contact of another"
	}
	return c.Trust
}

// Text returns the report for people.
func (r *Report) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "To %s, %s to %s UTC: %s of %s", strings.Join(r.To, ", "), Stamp(r.Since), Stamp(r.Until), many(r.Tracers, "tracer"), many(r.Keys, "key"))
	if r.Stale > 0 {
		fmt.Fprintf(&b, "; %s too late to count", many(r.Stale, "more"))
	}
	b.WriteString("\n")
	for _, a := range r.Attacks {
		fmt.Fprintf(&b, "\n%s: at least %spackets (%s), %sbytes, %s to %s\n", a.Target(), About(a.AtLeast.Packets), a.AtLeast.Plus(), About(a.AtLeast.Bytes), Stamp(a.First), clock(a))
		a.rest(&b)
	}
	for _, a := range r.InOurName {
		fmt.Fprintf(&b, "\nIn the name of %s, to %s: at least %spackets (%s), %s to %s\n", *a.Victim, a.Target(), About(a.AtLeast.Packets), a.AtLeast.Plus(), Stamp(a.First), clock(a))
		b.WriteString("  " + a.OurName() + "\n")
		a.rest(&b)
	}
	if r.Omitted > 0 {
		fmt.Fprintf(&b, "\n%s with fewer packets are not shown.\n", many(r.Omitted, "more"))
	}
	return b.Bytes()
}

// clock is the end of an attack, without the day if it is the same.
func clock(a *Attack) string {
	if a.First.Truncate(24 * time.Hour).Equal(a.Last.Truncate(24 * time.Hour)) {
		return a.Last.Format("15:04:05") + " UTC"
	}
	return Stamp(a.Last) + " UTC"
}

// OurName says what an attack in our name means.
func (a *Attack) OurName() string {
	switch a.Spoofed.String() {
	case "yes":
		return "This address is being spoofed: " + many(a.Spoofed.Yes, "carrier") + " saw that the source is forged."
	case "disputed":
		return "Carriers disagree on whether the source is forged. If you did not send this, you are being spoofed."
	}
	return "If you did not send this, you are being spoofed."
}

func (a *Attack) rest(b *bytes.Buffer) {
	if len(a.Carriers) > 1 {
		fmt.Fprintf(b, "  at most %spackets, if no two carriers saw the same ones\n", About(a.AtMost.Packets))
	}
	fmt.Fprintf(b, "  from %s; spoofed: %s", a.SourcesText(), a.Spoofed)
	if !a.Standing {
		b.WriteString("; all of this is said by new keys only")
	}
	b.WriteString("\n")
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  HOPS\tCARRIER\tCONTACT\tKEY\tTRUST\tTRACERS\tPACKETS\tERROR\tBYTES\tSPOOFED")
	for _, c := range a.Carriers {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", c.HopsText(), c.Name(), c.Contact.Line(), c.Short(), c.Trusted(), c.Tracers,
			strings.TrimSpace(About(c.Packets)), c.Plus(), strings.TrimSpace(About(c.Bytes)), c.Verdicts)
	}
	w.Flush()
}

func many(n int, noun string) string {
	if n == 1 || noun == "more" {
		return fmt.Sprintf("%d %s", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
