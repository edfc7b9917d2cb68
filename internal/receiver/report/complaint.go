// SPDX-License-Identifier: BSD-3-Clause

package report

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net/netip"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
)

// A Complainant is who reports.
type Complainant struct {
	Org   string
	Email string
}

// NewComplainant checks them.
func NewComplainant(org, email string) (Complainant, error) {
	if !isMailbox(email) {
		return Complainant{}, fmt.Errorf("%q is not an address as abuse@example.net", email)
	}
	if org == "" {
		_, org, _ = strings.Cut(email, "@")
	}
	return Complainant{Clean(org, 200), email}, nil
}

// line returns the tracer that stands for a carrier, as it was signed.
func (c *Carrier) line() []byte { return c.example.Signed.AppendLine(nil) }

// spoofing says what a carrier says of the sources.
func (c *Carrier) spoofing() string {
	how := ""
	if len(c.Methods) > 0 {
		how = " (" + strings.Join(c.Methods, ", ") + ")"
	}
	switch c.Verdicts.String() {
	case "yes":
		return "It says that the source addresses are forged" + how + "."
	case "no":
		return "It says that the source addresses are genuine" + how + "."
	case "disputed":
		return "It says of some that the source address is forged, and of others that it is not" + how + "."
	}
	return "It does not say whether the source addresses are forged."
}

// Mail returns a mail to a carrier, with its head, as "sendmail -t" takes it. It is
// for people who did not know that their router told us.
func (a *Attack) Mail(c *Carrier, by Complainant) []byte {
	var b strings.Builder
	if c.Contact.Email != "" {
		fmt.Fprintf(&b, "To: %s\n", c.Contact.Email)
	}
	if by.Email != "" {
		fmt.Fprintf(&b, "From: %s\n", by.Email)
	}
	what := "Flood to " + a.Target()
	if a.Victim != nil {
		what = "Packets in the name of " + a.Victim.String() + " to " + a.Target()
	}
	fmt.Fprintf(&b, "Subject: %s through your network, %s UTC\n", what, Stamp(c.First))
	b.WriteString("MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n")
	w := quotedprintable.NewWriter(&b) // a tracer is longer than a line of a mail may be (RFC 5322, section 2.1.1)
	io.WriteString(w, a.MailText(c))
	w.Close()
	return []byte(strings.ReplaceAll(b.String(), "\r\n", "\n"))
}

// MailText returns the text of the mail alone.
func (a *Attack) MailText(c *Carrier) string {
	from := "from " + sourcesOf(c)
	if a.Victim != nil {
		from = "with our address " + a.Victim.String() + " as their source"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "From %s to %s UTC your network carried about %spackets (%s) to %s, %s: so a router told us that gives you as its contact, in %s signed with the key %s.\n",
		Stamp(c.First), Stamp(c.Last), About(c.Packets), c.Plus(), a.Target(), from, many(c.Tracers, "tracer"), c.Key)
	fmt.Fprintf(&b, "%s Please find where they enter your network, and stop them there.\n\n", c.spoofing())
	fmt.Fprintf(&b, "One of the tracers; \"overflowd verify\" (https://github.com/overflowd/overflowd) checks its signature:\n%s\n", c.line())
	return b.String()
}

// sourcesOf names the most frequent sources of a carrier.
func sourcesOf(c *Carrier) string {
	all, more := top(c.sources, 3)
	var names []string
	for _, s := range all {
		names = append(names, s.Address.String())
	}
	if more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// xarfVersion is that of the schemas that were looked at.
const xarfVersion = "4.2.0"

type xarf struct {
	Version     string         `json:"xarf_version"`
	ID          string         `json:"report_id"`
	Timestamp   string         `json:"timestamp"`
	Reporter    xarfContact    `json:"reporter"`
	Sender      xarfContact    `json:"sender"`
	Source      string         `json:"source_identifier"`
	SourcePort  uint16         `json:"source_port,omitempty"`
	Category    string         `json:"category"`
	Type        string         `json:"type"`
	EvidenceOf  string         `json:"evidence_source"`
	Destination string         `json:"destination_ip"`
	Port        uint16         `json:"destination_port,omitempty"`
	Protocol    string         `json:"protocol"`
	First       string         `json:"first_seen"`
	Last        string         `json:"last_seen"`
	Duration    int64          `json:"duration_seconds,omitempty"`
	Description string         `json:"description"`
	Evidence    []xarfEvidence `json:"evidence"`
	Tags        []string       `json:"tags"`
}

type xarfContact struct {
	Org     string `json:"org"`
	Contact string `json:"contact"`
	Domain  string `json:"domain"`
}

type xarfEvidence struct {
	ContentType string `json:"content_type"`
	Description string `json:"description"`
	Payload     string `json:"payload"`
	Hash        string `json:"hash"`
	Size        int    `json:"size"`
}

// XARF returns a report in the eXtended Abuse Reporting Format, version 4, of type
// connection/ddos, for a carrier; nil if the format has no word for the protocol,
// or the flow no source port, which it requires.
//
// Its source is the source address of the flow that the carrier's last tracer
// names, also if that is forged: the tags and the description say so.
func (a *Attack) XARF(c *Carrier, by Complainant) []byte {
	f := &c.example.Flow
	protocol := map[uint8]string{1: "icmp", 58: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}[f.Protocol]
	if protocol == "" || f.Known&flow.HasPorts == 0 || f.SrcPort == 0 {
		return nil
	}
	_, domain, _ := strings.Cut(by.Email, "@")
	me := xarfContact{by.Org, by.Email, domain}
	line := c.line()
	sum := sha256.Sum256(line)
	x := xarf{
		Version: xarfVersion, ID: uuid(a, c), Timestamp: c.Last.Format(time.RFC3339), Reporter: me, Sender: me,
		Source: f.SrcAddr().String(), SourcePort: f.SrcPort, Category: "connection", Type: "ddos", EvidenceOf: "flow_analysis",
		Destination: a.Destination.String(), Protocol: protocol, First: c.First.Format(time.RFC3339), Last: c.Last.Format(time.RFC3339),
		Duration: int64(c.Last.Sub(c.First) / time.Second),
		Description: Clean(fmt.Sprintf("About %spackets (%s) to %s passed the router with the key %s. %s", About(c.Packets), c.Plus(), a.Target(), c.Key,
			c.spoofing()), 900),
		Evidence: []xarfEvidence{{"application/json", "signed tracer of the carrier's router", base64.StdEncoding.EncodeToString(line),
			"sha256:" + hex.EncodeToString(sum[:]), len(line)}},
		Tags: []string{"overflowd:tracer", "spoofed:" + strings.ReplaceAll(c.Verdicts.String(), " ", "-")},
	}
	if a.Port != nil && protocol != "icmp" {
		x.Port = *a.Port
	}
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		panic(err) // of strings and numbers
	}
	return append(b, '\n')
}

// uuid makes the same of the same report: whoever gets it twice sees that.
func uuid(a *Attack, c *Carrier) string {
	victim := netip.Addr{}
	if a.Victim != nil {
		victim = *a.Victim
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %s %s", a.Target(), victim, c.Key, c.First, c.Last))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80 // version 4, which the format wants (RFC 9562, section 5.4)
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// JSON returns the report for programs, in one object.
func (r *Report) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}
