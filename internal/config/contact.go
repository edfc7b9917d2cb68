// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/tracer"
)

// A ContactFor is who answers for a part of the network.
type ContactFor struct {
	Prefix  netip.Prefix
	Contact tracer.Contact
}

func (r *raw) contact(c *tracer.Contact) error {
	if err := fillContact(c, "--contact-", r.email, r.identity, r.url, r.role, r.asn); err != nil {
		return err
	}
	if over := len(largest(*c)) - tracer.MaxMessage; over > 0 {
		return fmt.Errorf("the contact is %d bytes too long for a tracer of %d bytes: shorten --contact-email, --contact-identity or --contact-url",
			over, tracer.MaxDatagram)
	}
	return nil
}

// fillContact checks the parts of a contact. Their names begin with a prefix in errors.
func fillContact(c *tracer.Contact, prefix, email, identity, url, role, asn string) error {
	for _, o := range []struct {
		option, value, want string
		ok                  func(string) bool
		to                  *string
	}{
		{"email", email, "an address as abuse@example.net", isEmail, &c.Email},
		{"identity", identity, "a name", isText, &c.Identity},
		{"url", url, "an http, https, mailto or tel URL", isURL, &c.URL},
		{"role", role, "abuse, noc or tech", isRole, &c.Role},
	} {
		if o.value == "" {
			continue
		}
		if !isText(o.value) || !o.ok(o.value) {
			return fmt.Errorf("%s%s %q is not %s", prefix, o.option, o.value, o.want)
		}
		*o.to = o.value
	}
	if text := asn; text != "" {
		if len(text) > 2 && strings.EqualFold(text[:2], "AS") {
			text = text[2:]
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("%sasn %q is not an AS number from 1 to 4294967295", strings.TrimSuffix(prefix, "contact-"), asn)
		}
		c.ASN = uint32(n)
	}
	return nil
}

// isRole knows those of RFC 7970, section 3.9.1, that somebody at a network has.
func isRole(s string) bool { return s == "abuse" || s == "noc" || s == "tech" }

// largest returns the longest message that a tracer with this contact can be,
// so that no flow is ever too long to tell. Evidence takes what room is left.
func largest(c tracer.Contact) []byte {
	ones := [16]byte{}
	for i := range ones {
		ones[i] = 0xff
	}
	const most = 1<<64 - 1
	t := tracer.Tracer{
		Flow: flow.Record{
			Key: flow.Key{Src: ones, Dst: ones, SrcPort: 65535, DstPort: 65535, Protocol: 255, Family: flow.IPv6},
			Known: flow.HasPorts | flow.HasTOS | flow.HasTCPFlags | flow.HasPackets | flow.HasBytes |
				flow.HasStart | flow.HasEnd | flow.HasTTL,
			Source: flow.Source{Protocol: flow.NetFlow, Version: 255},
			TOS:    255, TCPFlags: 255, TTL: 255, Interval: 1<<32 - 1,
			Packets: most, Bytes: most, Start: 1e16, End: 1e16,
		},
		Time: 1e14, Contact: c, Rate: 1.0 / 3e6, Selected: most, Held: most,
		Succeeds: &tracer.Endorsement{Since: 1e11}, To: netip.AddrFrom16(ones), Seq: most,
	}
	return t.AppendMessage(nil)
}

func isText(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s &&
		strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// isEmail checks the outline of an addr-spec (RFC 5322, section 3.4.1): a typo
// is caught, the rest is the mail server's.
func isEmail(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && at < len(s)-1 && len(s) <= 254 && !strings.ContainsAny(s, " <>()[],;:\\\"") &&
		!strings.Contains(s, "..") && strings.Count(s, "@") == 1 && !strings.ContainsAny(s[at+1:], "_!#$%&'*+/=?^`{|}~") &&
		s[at+1] != '.' && s[at+1] != '-' && s[len(s)-1] != '.'
}

func isURL(s string) bool {
	for _, scheme := range []string{"https://", "http://", "mailto:", "tel:"} {
		if rest, ok := strings.CutPrefix(s, scheme); ok {
			return rest != "" && !strings.ContainsAny(rest, " <>\"\\^`{|}")
		}
	}
	return false
}
