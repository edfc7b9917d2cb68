// SPDX-License-Identifier: BSD-3-Clause

package report

import (
	"net/netip"
	"net/url"
	"strings"
	"unicode"

	"github.com/overflowd/overflowd/internal/tracer"
)

// A Contact is what a carrier says of itself, fit to be shown: every text was
// written by a stranger. In a text, what does not print or could change the order
// of what stands around it is replaced, and what is too long is cut. Email and
// URL are empty unless they are what they are called.
type Contact struct {
	Email    string `json:"email,omitempty"`
	Identity string `json:"identity,omitempty"`
	URL      string `json:"url,omitempty"`
	ASN      uint32 `json:"asn,omitempty"`
}

// ContactOf returns what of a contact may be shown.
func ContactOf(c *tracer.Contact) Contact {
	k := Contact{Identity: Clean(c.Identity, maxText), ASN: c.ASN}
	if isMailbox(c.Email) {
		k.Email = c.Email
	}
	if isURL(c.URL) {
		k.URL = c.URL
	}
	return k
}

const maxText = 100

// Clean returns a text of a stranger as it may be shown: at most so many
// characters, without controls, and with no more than two marks on one.
func Clean(s string, most int) string {
	var b strings.Builder
	n, marks := 0, 0
	for _, r := range s {
		if unicode.Is(unicode.M, r) {
			if marks++; marks > 2 {
				continue
			}
		} else {
			marks = 0
		}
		if n++; n > most {
			b.WriteRune('…')
			break
		}
		// Not to be printed are controls, and what sets the direction of text or
		// shows nothing (Cc, Cf, Zl, Zp, and spaces but the usual one).
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// isMailbox is stricter than RFC 5322: what passes stands in a header, a link and
// a shell's line.
func isMailbox(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(local) > 64 || len(s) > 254 || !isDomain(domain) {
		return false
	}
	for _, c := range []byte(local) {
		if !alphanumeric(c) && !strings.ContainsRune(".+-_=", rune(c)) {
			return false
		}
	}
	return local[0] != '-' && local[0] != '.'
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func isDomain(s string) bool {
	labels := strings.Split(s, ".")
	if len(labels) < 2 || len(s) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// isURL takes http and https URLs of a host, in printable ASCII, with nothing that
// hides where they lead.
func isURL(s string) bool {
	if len(s) > 200 || !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune("\"'<>\\^`{|}", rune(c)) {
			return false
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Port() == "0" {
		return false
	}
	if isDomain(u.Hostname()) {
		return true
	}
	_, err = netip.ParseAddr(u.Hostname())
	return err == nil
}
