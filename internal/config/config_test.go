// SPDX-License-Identifier: BSD-3-Clause

package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

func TestBadOptionsAreNamedWithTheirValues(t *testing.T) {
	const contact = "--contact-email=a@b.example"
	for _, c := range []struct {
		args string // separated by spaces, + for a space within
		want string
	}{
		{"nonsense", `"nonsense"`},
		{"-x", "-x"},
		{"-r 0", `--rate "0"`}, {"-r -1", `--rate "-1"`}, {"-r 1.5", `--rate "1.5"`}, {"-r NaN", `--rate "NaN"`},
		{"-r 2/1", `--rate "2/1"`}, {"-r 1/0", `--rate "1/0"`}, {"-r 1/x", `--rate "1/x"`}, {"-r 0/0", `--rate "0/0"`},
		{"-u 0", `--udpport "0"`}, {"-u 65535", `--udpport "65535"`}, {"-u 65536", `--udpport "65536"`}, {"-u http", `--udpport "http"`},
		{"-f x -u 7777", "--pcapfile excludes"}, {"-f x -i eth0", "--pcapfile excludes"},
		{"-i eth0:dmz", `--interface "eth0:dmz"`}, {"-i eth0:", `--interface "eth0:"`}, {"-i :wan", `--interface ":wan"`},
		{"-i a123456789012345", `"a123456789012345"`}, {"-i a/b", `--interface "a/b"`}, {"-i eth0 --interface eth0:wan", "eth0 is there twice"},
		{"--flows 0", `--flows "0"`}, {"--flows 10000001", "10000000"}, {"--flows x", `--flows "x"`},
		{"-i eth0 --thin 0", `--thin "0"`}, {"-i eth0 --thin some", `--thin "some"`}, {"-i eth0 --thin 1001 -r 1/1000", "at most 1000"}, {"-i eth0 --thin 1000001 -r 1e-9", "above 1000000"},
		{"--thin 5", "--thin is of the packets of --interface"}, {"-f x --frames y", `--frames "y"`}, {"--frames packets", "--frames is of"},
		{"--listen here", `--listen "here"`},
		{"--listen 0.0.0.0", "--exporter"}, {"--listen 192.0.2.1", "--exporter"}, {"--listen ::", "--exporter"},
		{"--exporter 10.0.0.0/33", `--exporter "10.0.0.0/33"`}, {"--exporter fe80::1%eth0", `--exporter "fe80::1%eth0"`},
		{"--private x", `--private "x"`},
		{"--sampling-interval 0", `--sampling-interval "0"`}, {"--sampling-interval 192.0.2.1=x", `--sampling-interval "192.0.2.1=x"`},
		{"--sampling-interval here=5", `--sampling-interval "here=5"`}, {"--sampling-interval 4294967296", "4294967295"},
		{"--max-exporters 0", `--max-exporters "0"`}, {"--max-exporters 100001", "100000"},
		{"--seed x", `--seed "x"`},
		{"--send tcp " + contact, `--send "tcp"`}, {"--send , " + contact, `--send ","`}, {"--send udp,carrier-pigeon " + contact, `"udp,carrier-pigeon"`},
		{"--send udp", "contact"}, {"--send https", "contact"}, {"--send http -r 0.01 " + contact, "at most 1/1000"},
		{"--send udp,, " + contact, `--send "udp,,"`},
		{"--send https --https-trust me " + contact, `--https-trust "me"`}, {"--send http --https-trust any " + contact, "--https-trust any says nothing"},
		{"--seal prefer", "say nothing without --send"}, {"--seal-key 192.0.2.1=" + sealKey, "say nothing without --send"},
		{"--send udp --seal maybe " + contact, `--seal "maybe"`}, {"--send udp,http --seal require " + contact, "--seal require tells nobody"},
		{"--send udp --seal never --seal-key 192.0.2.1=" + sealKey + " " + contact, "--seal-key says nothing"},
		{"--send udp --seal-key " + sealKey + " " + contact, "does not begin with an address"}, {"--send udp --seal-key 192.0.2.1=00 " + contact, "not a key"},
		{"--send udp --seal-key 192.0.2.1=" + strings.Repeat("0", 64) + " " + contact, "not a key"},
		{"--send https --seal require --contact-identity " + strings.Repeat("x", 190), "too long for a sealed tracer"},
		{"--never x", `--never "x"`},
		{"--send udp -r 0.0011 " + contact, "at most 1/1000"}, {"--send udp -r 1 " + contact, "at most 1/1000"},
		{"--send udp --seed 1 " + contact, "--seed"},
		{"--contact-email nobody", `--contact-email "nobody"`}, {"--contact-email a@b@c", `--contact-email "a@b@c"`},
		{"--contact-email @b.c", "--contact-email"}, {"--contact-email a@", "--contact-email"}, {"--contact-email a@b..c", "--contact-email"},
		{"--contact-identity a\nb", "--contact-identity"}, {"--contact-identity +a", "--contact-identity"},
		{"--contact-identity \xff", "--contact-identity"},
		{"--contact-url ftp://x", `--contact-url "ftp://x"`}, {"--contact-url https://", "--contact-url"}, {"--contact-url https://a+b", "--contact-url"},
		{"--boost 0", `--boost "0"`}, {"--boost x", `--boost "x"`}, {"--flood -1", `--flood "-1"`}, {"--max-suspects 0", "--max-suspects"},
		{"--boost off --suspects x", "--suspects"}, {"--contact-role boss", `--contact-role "boss"`}, {"--contacts /nowhere", "/nowhere"},
		{"--ifindex x", `--ifindex "x"`}, {"--ifindex 3", "--ifindex"}, {"--ifindex 3:dmz", "--ifindex"}, {"--ifindex 3:wan=192.0.2.0/24", "--ifindex"},
		{"--ifindex 3:lan=", "--ifindex"}, {"--ifindex 3:lan=x", "--ifindex"}, {"--ifindex 192.0.2.1=x:lan", "--ifindex"},
		{"--asn 0", `--asn "0"`}, {"--asn 4294967296", `--asn "4294967296"`}, {"--asn ASX", `--asn "ASX"`},
		{"--contact-identity " + strings.Repeat("x", 1000), "too long"},
	} {
		args := strings.Split(c.args, " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "+", " ")
		}
		if _, err := Parse(args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want it to say %s", c.args, err, c.want)
		}
	}
}

// sealKey is the one of RFC 7748, section 6.1.
const sealKey = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"

func TestGoodOptions(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	listen := netip.MustParseAddrPort("127.0.0.1:7777")
	seed := [32]byte{0x39, 0x30}
	key, err := tracer.ParseSealKey(sealKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want Config
	}{
		{"", Config{Listen: listen, Exporters: loopback, Rate: 1e-6}},
		{"-f x.pcap -r 1", Config{PcapFile: "x.pcap", Rate: 1}},
		{"--pcapfile=- --rate=1/1000000 --seed 12345", Config{PcapFile: "-", Rate: 1e-6, Seed: &seed}},
		{"-u 9500 --listen ::1", Config{Listen: netip.MustParseAddrPort("[::1]:9500"), Exporters: loopback, Rate: 1e-6}},
		{"--listen 0.0.0.0 --exporter 10.1.2.3/8 --exporter 2001:db8::1", Config{Listen: netip.MustParseAddrPort("0.0.0.0:7777"),
			Exporters: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}, Rate: 1e-6}},
		{"-f x.pcap --sampling-interval 192.0.2.1=100 --sampling-interval 7 --max-exporters 1000 --status /s/s", Config{PcapFile: "x.pcap", Rate: 1e-6,
			Remember: 1000, Status: "/s/s", Intervals: []source.Interval{{Exporters: netip.MustParsePrefix("192.0.2.1/32"), N: 100},
				{Exporters: netip.MustParsePrefix("0.0.0.0/0"), N: 7}, {Exporters: netip.MustParsePrefix("::/0"), N: 7}}}},
		{"-i pppoe-wan:wan --interface br-lan:lan -i wg0 --flows 1000 --thin 1000000", Config{Flows: 1000, Thin: 1000000, Rate: 1e-6,
			Interfaces: []source.Interface{{Name: "pppoe-wan", Role: source.WAN}, {Name: "br-lan", Role: source.LAN}, {Name: "wg0"}}, NAT: true}},
		{"--conntrack", Config{Conntrack: true, NAT: true, Rate: 1e-6}},
		{"--boost off -f x --flood 0 --max-suspects 1000000", Config{PcapFile: "x", Rate: 1e-6, MaxSuspects: 1000000}},
		{"--boost 1000 -f x -r 0.0004 --flood 7 --suspects /x", Config{PcapFile: "x", Rate: 0.0004, Suspect: true, Boosted: 0.4, Flood: 7, Suspects: "/x", MaxSuspects: 65536}},
		{"--boost 7 --send udp --asn 1 -r 0.0001", Config{Listen: listen, Exporters: loopback, Rate: 0.0001, Boosted: 0.0007, SendUDP: true, Seal: sender.SealPrefer, Contact: tracer.Contact{ASN: 1}}},
		{"--boost 1000000 --send udp --asn 1 --contact-role noc", Config{Listen: listen, Exporters: loopback, Rate: 1e-6, Boosted: 0.001, SendUDP: true, Seal: sender.SealPrefer, Contact: tracer.Contact{ASN: 1, Role: "noc"}}},
		{"--send https,http,udp --https-trust any --seal require --seal-key 192.0.2.0/24=" + sealKey + " --seal-key 192.0.2.7=" + sealKey + " --never 198.51.100.7/24 --asn 1",
			Config{Listen: listen, Exporters: loopback, Rate: 1e-6, SendUDP: true, SendHTTP: true, SendHTTPS: true, TrustAny: true, Seal: sender.SealRequire,
				SealKeys: []sender.SealFor{{Prefix: netip.MustParsePrefix("192.0.2.7/32"), Key: key}, {Prefix: netip.MustParsePrefix("192.0.2.0/24"), Key: key}},
				Never:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Contact: tracer.Contact{ASN: 1}}},
		{"--send http --seal never --asn 1", Config{Listen: listen, Exporters: loopback, Rate: 1e-6, SendHTTP: true, Contact: tracer.Contact{ASN: 1}}},
		{"-f x --ifindex 12:wan --ifindex 192.0.2.1=3:lan=198.51.100.7/24,2001:db8::/32 --ifindex 2001:db8::1=4:lan", Config{PcapFile: "x", Rate: 1e-6,
			Exported: []evidence.ExporterInterface{{Exporters: everyIPv4, Index: 12, Role: evidence.WAN}, {Exporters: everyIPv6, Index: 12, Role: evidence.WAN},
				{Exporters: netip.MustParsePrefix("192.0.2.1/32"), Index: 3, Role: evidence.LAN, Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
				{Exporters: netip.MustParsePrefix("2001:db8::1/128"), Index: 4, Role: evidence.LAN}}}},
		{"--nat", Config{NAT: true, Listen: listen, Exporters: loopback, Rate: 1e-6}},
		{"-i wan --thin auto -u 9500", Config{Interfaces: []source.Interface{{Name: "wan"}}, ThinAuto: true, Rate: 1e-6,
			Listen: netip.MustParseAddrPort("127.0.0.1:9500"), Exporters: loopback}},
		{"-f x.pcap --frames packets", Config{PcapFile: "x.pcap", Frames: source.Packets, Rate: 1e-6}},
		{"--send udp -r 0.001 --asn AS64500 --private 10.0.0.0/8 --user nobody", Config{Listen: listen, Exporters: loopback, Rate: 0.001,
			Boosted: 0.001, SendUDP: true, Seal: sender.SealPrefer, Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, User: "nobody", Contact: tracer.Contact{ASN: 64500}}},
		{"--contact-email abuse+x@sub.example.net --contact-identity Bücher+&+Co --contact-url https://example.net/a?b=c#d", Config{
			Listen: listen, Exporters: loopback, Rate: 1e-6,
			Contact: tracer.Contact{Email: "abuse x@sub.example.net", Identity: "Bücher & Co", URL: "https://example.net/a?b=c#d"}}},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			if !strings.Contains(args[i], "@") {
				args[i] = strings.ReplaceAll(args[i], "+", " ")
			}
		}
		c.want.Contact.Email = strings.ReplaceAll(c.want.Contact.Email, " ", "+")
		c.want.StateDir = "/s"
		if c.want.Remember == 0 {
			c.want.Remember = 32
		}
		if c.want.Flows == 0 {
			c.want.Flows = 8192
		}
		c.want.Thin = max(c.want.Thin, 1)
		if c.want.MaxSuspects == 0 {
			c.want.Suspect, c.want.MaxSuspects, c.want.Flood = true, 65536, 100000
			if c.want.Boosted == 0 {
				c.want.Boosted = map[float64]float64{1e-6: 1e-4, 1: 1}[c.want.Rate]
			}
		}
		got, err := Parse(append(args, "--state", "/s"))
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if diff := cmp.Diff(&c.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.IgnoreUnexported(evidence.ExporterInterface{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, diff)
		}
	}
}

func TestEveryOptionIsInTheHelpAndTheOtherWayRound(t *testing.T) {
	for _, option := range []string{"pcapfile", "udpport", "listen", "exporter", "rate", "seed", "send", "private",
		"contact-email", "contact-identity", "contact-url", "asn", "state", "user", "sampling-interval", "max-exporters", "status",
		"boost", "flood", "suspects", "max-suspects", "contact-role", "contacts"} {
		if !strings.Contains(Usage, "--"+option+" ") {
			t.Errorf("--%s is not in the help", option)
		}
		if _, err := Parse([]string{"--" + option + "=\x00"}); err != nil && strings.Contains(err.Error(), "not defined") {
			t.Errorf("--%s is not an option", option)
		}
	}
	for _, help := range []string{"-h", "--help"} {
		if _, err := Parse([]string{help}); !errors.Is(err, ErrHelp) {
			t.Errorf("%s: %v", help, err)
		}
	}
}

func TestTheFolderOfTheKey(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, c := range []struct{ named, xdg, want string }{
		{"/x", "/y", "/x"}, {"", "/y", "/y/overflowd"}, {"", "relative", home + "/.local/state/overflowd"}, {"", "", home + "/.local/state/overflowd"},
	} {
		if os.Geteuid() == 0 && c.named == "" {
			c.want = "/etc/overflowd"
		}
		t.Setenv("XDG_STATE_HOME", c.xdg)
		if got, err := StateDir(c.named); err != nil || got != filepath.Clean(c.want) {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// TestTheLargestTracerFitsTheDatagram takes the longest contact that is
// accepted and builds the tracer that says most.
func TestTheLargestTracerFitsTheDatagram(t *testing.T) {
	n := 1
	for ; ; n++ {
		if _, err := Parse([]string{"--contact-identity", strings.Repeat("x", n)}); err != nil {
			break
		}
	}
	if n < 100 {
		t.Errorf("a name of %d bytes is refused", n)
	}
	if size := len(largest(tracer.Contact{Identity: strings.Repeat("x", n-1)})); size != tracer.MaxMessage {
		t.Errorf("the largest tracer has %d bytes of %d", size, tracer.MaxMessage)
	}
}
