// SPDX-License-Identifier: BSD-3-Clause

package report

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"math"
	"mime/quotedprintable"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

var (
	start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	us    = netip.MustParseAddr("203.0.113.5")
)

// a told is a tracer, as a test says it.
type told struct {
	key      byte
	to       string // us if empty
	src      string
	dst      string
	port     uint16
	rate     float64
	selected uint64
	held     uint64
	packets  uint64
	bytes    uint64
	hops     int
	contact  tracer.Contact
	level    receiver.Level
	verdict  tracer.Evidence
	after    time.Duration
	stale    bool
}

func (a told) received() *receiver.Received {
	m := tracer.Tracer{Time: start.Add(a.after).UnixMilli(), Rate: a.rate, Selected: a.selected, Held: a.held, Contact: a.contact, To: us, Nonce: [8]byte{1}}
	if a.to != "" {
		m.To = netip.MustParseAddr(a.to)
	}
	src, dst := netip.MustParseAddr(or(a.src, "192.0.2.7")), netip.MustParseAddr(or(a.dst, us.String()))
	m.Flow.Family = flow.IPv4
	if src.Is6() {
		m.Flow.Family = flow.IPv6
	}
	copy(m.Flow.Src[:], src.AsSlice())
	copy(m.Flow.Dst[:], dst.AsSlice())
	m.Flow.Protocol, m.Flow.SrcPort, m.Flow.DstPort = 17, 53, a.port
	m.Flow.Known = flow.HasPorts | flow.HasPackets | flow.HasBytes
	m.Flow.Packets, m.Flow.Bytes = a.packets, a.bytes
	m.Evidence = a.verdict
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{a.key}, ed25519.SeedSize))
	return &receiver.Received{Message: &tracer.Message{Tracer: m}, Signed: tracer.Sign(key, m.AppendMessage(nil)), From: netip.MustParseAddr("198.51.100.1"),
		Hops: a.hops, Arrived: start.Add(a.after), Level: a.level, Stale: a.stale}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func build(all ...told) *Report {
	b := NewBuilder(func(a netip.Addr) bool { return a == us }, []string{us.String()}, start.Add(-time.Hour), start.Add(time.Hour))
	for _, a := range all {
		b.Add(a.received())
	}
	return b.Report()
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }

func TestTheEstimateIsTheSumOfSelectedByRate(t *testing.T) {
	r := build(
		told{key: 1, port: 80, rate: 1e-6, selected: 3, packets: 1000, bytes: 100_000, hops: 2, level: receiver.Consistent},
		told{key: 1, port: 80, rate: 1e-5, selected: 1, packets: 10, bytes: 5000, hops: 2, level: receiver.Consistent},
	)
	if len(r.Attacks) != 1 || r.Tracers != 2 || r.Keys != 1 {
		t.Fatalf("%+v", r)
	}
	a := r.Attacks[0]
	if !near(a.AtLeast.Packets, 3.1e6) || !near(a.AtLeast.Bytes, 3e8+5e7) || !near(a.AtLeast.Percent, 98) || !near(a.AtMost.Packets, 3.1e6) {
		t.Errorf("%+v", a.AtLeast)
	}
}

// TestWhatWasHeldBackIsShared among the flows of that key as what was not.
func TestWhatWasHeldBackIsShared(t *testing.T) {
	r := build(
		told{key: 1, port: 80, rate: 1e-6, selected: 10, held: 7, level: receiver.Consistent},
		told{key: 1, port: 443, rate: 1e-6, selected: 1, level: receiver.Consistent},
		told{key: 2, port: 443, rate: 1e-6, selected: 4, held: 4},
	)
	var of80, of443 *Attack
	for _, a := range r.Attacks {
		if *a.Port == 80 {
			of80 = a
		} else {
			of443 = a
		}
	}
	if !near(of80.AtLeast.Packets, 11e6*3/4) || !near(of443.AtLeast.Packets, 11e6/4) || !near(of80.AtLeast.Packets+of443.AtLeast.Packets, 11e6) {
		t.Errorf("%v and %v", of80.AtLeast, of443.AtLeast)
	}
	if want := 196 * math.Sqrt(1./11+1./3-1./4); !near(of80.AtLeast.Percent, want) {
		t.Errorf("±%v %%, want %v: which flows were named is a sample, too", of80.AtLeast.Percent, want)
	}
	if c := of443.Carriers; len(c) != 2 || !near(c[0].Packets+c[1].Packets, 4e6+11e6/4) {
		t.Errorf("%+v", c)
	}
}

// TestThePathIsOrderedByHops whatever else is said, and the nearest is the last.
func TestThePathIsOrderedByHops(t *testing.T) {
	r := build(
		told{key: 1, port: 80, rate: 1e-6, selected: 1, hops: 2, level: receiver.Consistent, contact: tracer.Contact{Identity: "near, says it is 30 hops away"}},
		told{key: 2, port: 80, rate: 1e-6, selected: 9, hops: 12, level: receiver.Pinned},
		told{key: 3, port: 80, rate: 1e-6, selected: 1, hops: 5},
		told{key: 4, port: 80, rate: 1e-6, selected: 1, hops: -1},
		told{key: 3, port: 80, rate: 1e-6, selected: 1, hops: 30},
	)
	var hops []string
	for _, c := range r.Attacks[0].Carriers {
		hops = append(hops, c.HopsText())
	}
	if got := strings.Join(hops, " "); got != "? 12 5-30 2" {
		t.Errorf("%s", got)
	}
}

func TestWhoHasStandingDecides(t *testing.T) {
	liar := told{key: 9, port: 80, rate: 1e-9, selected: 1 << 60, hops: 3}
	r := build(told{key: 1, port: 80, rate: 1e-6, selected: 2, level: receiver.Consistent}, liar, told{key: 9, port: 666, rate: 1e-9, selected: 1 << 60})
	a := r.Attacks[0]
	if *a.Port != 80 || !a.Standing || !near(a.AtLeast.Packets, 2e6) || !near(a.AtMost.Packets, 2e6) {
		t.Errorf("%+v", a)
	}
	if r.Attacks[1].Standing || !strings.Contains(string(r.Text()), "said by new keys only") {
		t.Errorf("%s", r.Text())
	}
	if _, err := build(told{key: 9, rate: 5e-324, selected: math.MaxUint64, packets: 1, bytes: math.MaxUint64}).JSON(); err != nil {
		t.Error(err)
	}
}

func TestWhatDoesNotCount(t *testing.T) {
	r := build(
		told{key: 1, port: 80, rate: 1e-6, selected: 2, stale: true},
		told{key: 1, port: 80, rate: 1e-6, selected: 2, to: "203.0.113.6"},
		told{key: 1, port: 80, rate: 1e-6, selected: 2, after: 2 * time.Hour},
		told{key: 1, port: 80, rate: 1e-6, selected: 2, after: -2 * time.Hour},
		told{key: 1, port: 80, rate: 0, selected: 2},
	)
	if len(r.Attacks)+len(r.InOurName) != 0 || r.Tracers != 0 || r.Stale != 2 {
		t.Errorf("%+v", r)
	}
}

func TestInOurName(t *testing.T) {
	yes := tracer.Evidence{Spoofed: "yes", Method: "source of another interface", Point: "lan"}
	r := build(
		told{key: 1, src: us.String(), dst: "192.0.2.99", port: 53, rate: 1e-6, selected: 2, verdict: yes, contact: tracer.Contact{Email: "noc@example.net"}},
		told{key: 2, src: us.String(), dst: "192.0.2.99", port: 53, rate: 1e-6, selected: 2},
		told{key: 2, src: "192.0.2.1", port: 80, rate: 1e-6, selected: 2, verdict: tracer.Evidence{Spoofed: "no"}},
		told{key: 1, src: "192.0.2.1", port: 80, rate: 1e-6, selected: 2, verdict: yes},
	)
	if len(r.Attacks) != 1 || len(r.InOurName) != 1 || r.InOurName[0].Spoofed != (Verdicts{Yes: 1, Unknown: 1}) || r.Attacks[0].Spoofed.String() != "disputed" {
		t.Fatalf("%s", r.Text())
	}
	for _, want := range []string{"In the name of 203.0.113.5, to 192.0.2.99 udp port 53", "This address is being spoofed: 1 carrier saw that the source is forged."} {
		if !strings.Contains(string(r.Text()), want) {
			t.Errorf("no %q in\n%s", want, r.Text())
		}
	}
	a := r.InOurName[0]
	for _, c := range a.Carriers {
		if c.Contact.Email == "" {
			continue
		}
		if !strings.Contains(a.MailText(c), "with our address 203.0.113.5 as their source") || !strings.Contains(a.MailText(c), "forged (source of another interface)") {
			t.Errorf("%s", a.MailText(c))
		}
	}
}

func TestManyPortsAreOneAttack(t *testing.T) {
	var all []told
	for port := range uint16(100) {
		all = append(all, told{key: 1 + byte(port%2), port: 1000 + port, rate: 1e-6, selected: 1, held: uint64(port % 2), hops: int(port % 2)})
	}
	r := build(append(all, told{key: 1, port: 80, dst: "192.0.2.8", src: us.String(), rate: 1e-6, selected: 1})...)
	if len(r.Attacks) != 1 || r.Attacks[0].Ports != 100 || r.Attacks[0].Port != nil || len(r.Attacks[0].Carriers) != 2 ||
		r.Attacks[0].Carriers[0].Tracers != 50 || !near(r.Attacks[0].AtMost.Packets, 100e6) || len(r.InOurName) != 1 {
		t.Errorf("%s", r.Text())
	}
}

func TestAStolenContactIsMarked(t *testing.T) {
	c := tracer.Contact{Email: "noc@example.net", ASN: 64500}
	r := build(told{key: 1, port: 80, rate: 1e-6, selected: 1, hops: 1, level: receiver.Consistent, contact: c}, told{key: 2, port: 80, rate: 1e-6, selected: 1, hops: 2, contact: c})
	if a := r.Attacks[0].Carriers; a[1].Shared || !a[0].Shared {
		t.Errorf("%s", r.Text())
	}
}

// hostile are texts that somebody may send as a contact.
var hostile = []string{
	"<script>alert(1)</script>", "javascript:alert(1)", "a\nBcc: victim@example.org", "\x1b[2J\x1b]0;x\a", "\u202egnp.exe", "\u2066\u200bx\ufeff",
	strings.Repeat("A", 1100), "x" + strings.Repeat("\u0301", 500), "\"onmouseover=\"x", "data:text/html,x", "https://user:pass@example.net/", "https://exa\u0430mple.net/",
	"http://[::1]/", "https://example.net/\" onclick=\"x", "' OR 1=1 --", "a@b@example.net", "\xff\xfe", "$(reboot)@example.net", "-oX@example.net", "=cmd|'/c calc'!A1",
}

func TestWhatStrangersSayIsHarmless(t *testing.T) {
	for _, h := range hostile {
		r := build(told{key: 1, port: 80, rate: 1e-6, selected: 1, contact: tracer.Contact{Email: h, Identity: h, URL: h},
			verdict: tracer.Evidence{Spoofed: "yes", Method: h}})
		a := r.Attacks[0]
		c := a.Carriers[0]
		if c.Contact.Email != "" || c.Contact.URL != "" && c.Contact.URL != "http://[::1]/" {
			t.Errorf("%q: %+v", h, c.Contact)
		}
		for kind, text := range map[string][]byte{"text": r.Text(), "mail": a.Mail(c, Complainant{}), "xarf": a.XARF(c, Complainant{"Us", "abuse@example.com"})} {
			for _, line := range strings.Split(string(text), "\n") {
				if strings.Contains(line, `"payload"`) { // base64 of what was signed
					continue
				}
				for _, x := range line {
					if !unicode.IsPrint(x) {
						t.Errorf("%.50q in the %s: %.200q", h, kind, line)
						break
					}
				}
				if strings.HasPrefix(line, "Bcc") || len(line) > 998 {
					t.Errorf("%.50q in the %s: %.200q", h, kind, line)
				}
			}
		}
	}
	for _, good := range []string{"abuse@example.net", "noc+x@sub.example.co"} {
		if !isMailbox(good) {
			t.Errorf("%s was refused", good)
		}
	}
	for _, good := range []string{"https://example.net/abuse?x=1", "http://192.0.2.1:8080/"} {
		if !isURL(good) {
			t.Errorf("%s was refused", good)
		}
	}
}

func TestTheMailIsReadyToSend(t *testing.T) {
	r := build(told{key: 1, port: 80, rate: 1e-6, selected: 4, packets: 10, bytes: 10_000, hops: 4, level: receiver.Consistent,
		contact: tracer.Contact{Email: "abuse@example.net", Identity: "Example Net"}, verdict: tracer.Evidence{Spoofed: "yes", Method: "martian"}},
		told{key: 1, port: 80, rate: 1e-6, selected: 4, packets: 10, bytes: 10_000, hops: 4, level: receiver.Consistent, after: 90 * time.Second, src: "192.0.2.8",
			contact: tracer.Contact{Email: "abuse@example.net", Identity: "Example Net"}, verdict: tracer.Evidence{Spoofed: "yes", Method: "martian"}})
	a := r.Attacks[0]
	m, err := mail.ReadMessage(bytes.NewReader(a.Mail(a.Carriers[0], Complainant{"Us", "abuse@example.com"})))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	head := func(name string) string { return name + ": " + m.Header.Get(name) + "\n" }
	mail := head("To") + head("From") + head("Subject") + "\n" + string(text)
	for _, want := range []string{"To: abuse@example.net\n", "From: abuse@example.com\n", "Subject: Flood to 203.0.113.5 udp port 80 through your network, 2026-11-25 12:00:00 UTC\n",
		"\n\nFrom 2026-11-25 12:00:00 to 2026-11-25 12:01:30 UTC your network carried about 8 Mpackets (±70 %) to 203.0.113.5 udp port 80, from 192.0.2.7, 192.0.2.8:",
		"in 2 tracers signed with the key " + a.Carriers[0].Key, "It says that the source addresses are forged (martian)."} {
		if !strings.Contains(mail, want) {
			t.Errorf("no %q in\n%s", want, mail)
		}
	}
	_, body, _ := strings.Cut(mail, "\n\n")
	if lines, _, _ := strings.Cut(body, "\n\n"); strings.Count(lines, "\n") > 2 {
		t.Errorf("more than 3 lines:\n%s", lines)
	}
	lines := strings.Split(strings.TrimSpace(mail), "\n")
	s, err := tracer.ParseLine([]byte(lines[len(lines)-1]))
	if err == nil {
		_, err = s.Open()
	}
	if err != nil {
		t.Errorf("the excerpt: %v", err)
	}
}

func TestXARF(t *testing.T) {
	r := build(told{key: 1, port: 80, rate: 1e-6, selected: 4, hops: 4, contact: tracer.Contact{Email: "abuse@example.net"}})
	a := r.Attacks[0]
	by, err := NewComplainant("", "abuse@example.com")
	if err != nil {
		t.Fatal(err)
	}
	b := a.XARF(a.Carriers[0], by)
	var x map[string]any
	if err := json.Unmarshal(b, &x); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"xarf_version": "4.2.0", "category": "connection", "type": "ddos", "source_identifier": "192.0.2.7", "source_port": 53.0,
		"destination_ip": "203.0.113.5", "destination_port": 80.0, "protocol": "udp", "first_seen": "2026-11-25T12:00:00Z", "timestamp": "2026-11-25T12:00:00Z"} {
		if x[name] != want {
			t.Errorf("%s is %v, want %v", name, x[name], want)
		}
	}
	evidence := x["evidence"].([]any)[0].(map[string]any)
	line, err := base64.StdEncoding.DecodeString(evidence["payload"].(string))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tracer.ParseLine(line)
	if err == nil {
		_, err = s.Open()
	}
	if err != nil {
		t.Errorf("the evidence: %v", err)
	}
	if string(b) != string(a.XARF(a.Carriers[0], by)) {
		t.Error("the same report has two names")
	}
	icmp := told{key: 1, port: 0x0800, rate: 1e-6, selected: 1}.received()
	icmp.Flow.Protocol, icmp.Flow.SrcPort = 1, 0
	builder := NewBuilder(func(netip.Addr) bool { return true }, nil, start, start)
	builder.Add(icmp)
	if a := builder.Report().Attacks[0]; a.XARF(a.Carriers[0], by) != nil || a.Target() != "203.0.113.5 icmp type 8 code 0" {
		t.Errorf("of ICMP: %s", a.Target())
	}
	if _, err := NewComplainant("x", "a b@example.com"); err == nil {
		t.Error("a bad address was taken")
	}
}

// TestXARFByItsSchema holds our reports to the schemas of XARF, by another's program.
func TestXARFByItsSchema(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import jsonschema").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-jsonschema is missing: %v", err)
		}
		t.Skip("python3-jsonschema is missing")
	}
	by, err := NewComplainant("Us & Co", "abuse@example.com")
	if err != nil {
		t.Fatal(err)
	}
	var reports []byte
	n := 0
	yes := tracer.Evidence{Spoofed: "yes", Method: "no route back"}
	r := build(told{key: 1, port: 80, rate: 1e-6, selected: 4, hops: 4, verdict: yes, contact: tracer.Contact{Email: hostile[0], Identity: hostile[1]}},
		told{key: 2, port: 80, rate: 1e-6, selected: 4, hops: 4, after: time.Minute}, told{key: 2, port: 80, rate: 1e-6, selected: 4, hops: 4, after: 2 * time.Minute},
		told{key: 1, port: 53, src: us.String(), dst: "192.0.2.99", rate: 1e-6, selected: 4, verdict: yes})
	for _, a := range append(r.Attacks, r.InOurName...) {
		for _, c := range a.Carriers {
			reports = append(reports, a.XARF(c, by)...)
			n++
		}
	}
	for what, c := range map[string]struct{ in, want string }{
		"ours":           {string(reports), strings.Repeat("valid\n", n)},
		"without a time": {strings.Replace(string(reports), `"first_seen"`, `"first"`, 1), "'first_seen' is a required property\n" + strings.Repeat("valid\n", n-1)},
	} {
		cmd := exec.Command(python, "../../../testdata/xarf/check.py")
		cmd.Stdin = strings.NewReader(c.in)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != c.want || n != 3 {
			t.Errorf("%s: %v: %d reports: %s", what, err, n, out)
		}
	}
}

func TestAbout(t *testing.T) {
	for n, want := range map[float64]string{0: "0 ", 999: "999 ", 1234: "1.23 k", 45_678_900: "45.7 M", 1e24: "1000000 E", 1e30: "?", -1: "?"} {
		if got := About(n); got != want && !(n == 1e24 && got == "?") {
			t.Errorf("%v: %q, want %q", n, got, want)
		}
	}
}

// TestABuilderIsBounded: whoever tells of a flow to each port of each of our
// addresses fills no memory.
func TestABuilderIsBounded(t *testing.T) {
	b := NewBuilder(func(netip.Addr) bool { return true }, nil, start, start.Add(time.Hour))
	x := told{key: 1, rate: 1e-6, selected: 1}.received()
	for i := range 3 * maxAttacks {
		x.Flow.Protocol, x.Flow.DstPort, x.Flow.Src = byte(i>>8), uint16(i), [16]byte{byte(i >> 16), byte(i >> 8), byte(i)}
		b.Add(x)
	}
	if len(b.attacks) != maxAttacks {
		t.Errorf("%d attacks", len(b.attacks))
	}
	r := b.Report()
	if len(r.Attacks) > most || r.Omitted == 0 {
		t.Errorf("%d shown, %d not", len(r.Attacks), r.Omitted)
	}
}

func FuzzClean(f *testing.F) {
	for _, h := range hostile {
		f.Add(h)
	}
	if len(hostile) < 10 {
		f.Fatal("no corpus")
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s, 50)
		for _, r := range c {
			if !unicode.IsPrint(r) && r != unicode.ReplacementChar {
				t.Errorf("%q became %q", s, c)
			}
		}
		if n := len([]rune(c)); n > 51 || Clean(c, 51) != c {
			t.Errorf("%q became %q", s, c)
		}
		if isMailbox(s) && strings.ContainsAny(s, " \r\n<>\"'`;|&,%") || isURL(s) && !strings.HasPrefix(s, "http") {
			t.Errorf("%q was taken", s)
		}
	})
}
