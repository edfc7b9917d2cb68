// SPDX-License-Identifier: BSD-3-Clause

// Package config turns the command line into a validated Config, once. UCI and
// systemd units become a command line too: there is no second format.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

// Config is what the daemon runs with.
type Config struct {
	PcapFile  string            // "" if there is none, "-" for standard input
	Frames    source.Frames     // of PcapFile
	Listen    netip.AddrPort    // not valid if no flow export is received
	Exporters []netip.Prefix    // who may send flow export datagrams
	Intervals []source.Interval // of exporters that do not tell
	Remember  int               // so many exporters
	// Interfaces to capture on, with a table of Flows; of the packets there 1 in
	// Thin is captured, or in what ThinAuto makes of it.
	Interfaces []source.Interface
	Flows      int
	Thin       uint32
	ThinAuto   bool
	Conntrack  bool    // read connections
	NAT        bool    // look up what translation makes of private ends
	Status     string  // path of the status socket, "" for the usual one
	Rate       float64 // chance of one packet to be selected
	// Suspect tells that flows are suspected; then Boosted is the chance of one packet
	// of those. Flood is how many packets a second to one address are too many, 0 none.
	Suspect     bool
	Boosted     float64
	Flood       uint32
	Suspects    string // path of a list of prefixes, "" for none
	MaxSuspects int    // so many are taken
	// Exported are interfaces of exporters.
	Exported  []evidence.ExporterInterface
	Seed      *[32]byte // nil but for tests and demonstrations
	SendUDP   bool
	SendHTTP  bool // post tracers, too
	SendHTTPS bool // likewise, first
	TrustAny  bool // certificates of HTTPS are not checked
	Seal      sender.Sealing
	SealKeys  []sender.SealFor // the longest prefixes first
	Never     []netip.Prefix   // addresses that are never told
	Receive   bool             // take tracers
	ReceiveTo []netip.Prefix   // that are for these, besides our own addresses
	Private   []netip.Prefix   // special-purpose addresses that may be notified all the same
	StateDir  string
	User      string // to become after the sockets are open, "" for none
	Contact   tracer.Contact
	Contacts  []ContactFor // of parts of the network, the smallest first
	Version   string       // of the program
}

// ErrHelp: the command line asks for the help text.
var ErrHelp = flag.ErrHelp

// Usage is the help text of the program.
const Usage = `Usage: overflowd [flags]
       overflowd verify [--key KEY] [FILE...]
       overflowd key show|export|import|rotate|recipient [flags]
       overflowd status [--json] [--status SOCKET]
       overflowd check [flags]
       overflowd version

Overflowd watches flows and makes, for about one packet in a million, a signed
tracer for the source and the destination of its flow: who saw it, and whom to
call. Tracers go to standard output, one JSON object a line; with --send they
also go to the two addresses themselves. "check" only tells whether the flags are
right.

Where flows come from:
  -i, --interface NAME[:wan|lan]   capture the packets of an interface, towards
                          the Internet or towards our hosts; repeatable
      --conntrack         read the counters of the kernel's connection tracking,
                          which sees what flow offload hides from a capture
  -f, --pcapfile FILE     read a capture file (pcap or pcapng; - is standard input)
                          and exit
      --frames KIND       what is in the file: flow export datagrams that are to be
                          decoded (export), or packets of flows (packets) (what
                          most of its first frames are)
  -u, --udpport PORT      receive flow export datagrams: NetFlow v1, v5, v7 and v9,
                          IPFIX, sFlow v5, whichever comes (7777; what it does
                          when no source is named)
      --listen ADDR       address for -u (127.0.0.1)
      --exporter PREFIX   who may export to us; repeatable (loopback addresses;
                          must be given when --listen is another)
      --sampling-interval N   exporters that do not tell their sampling interval
                          look at 1 packet in N; as PREFIX=N for those of the
                          prefix only; repeatable, the first that fits counts (1)
      --max-exporters N   so many exporters (observation domains) are remembered,
                          about 5 kB each (32)

How packets are captured:
      --flows N           so many flows, or connections, are remembered, 77 bytes
                          each (8192)
      --thin N            capture 1 packet in N only, at random, which the kernel
                          does for less; auto: as few as keep the load low (1)
      --nat               ask the connection tracking what address translation
                          makes of private ends (with --conntrack, and :lan)

What is selected:
  -r, --rate RATE         chance of one packet to be selected, as 0.000001 or
                          1/1000000 (0.000001); at most 1/1000 with --send
      --boost N           packets of flows that look like an attack have a chance
                          that is N times as high, at most 1/1000 with --send; off:
                          no flow is suspected (100)
      --flood N           suspect flows to an address that gets more packets than
                          that a second; 0: never (100000)
      --suspects FILE     suspect flows with an end in these prefixes, one a line;
                          read again when the file changes
      --max-suspects N    take a list of so many prefixes at the most, about 8 bytes
                          each, 32 of IPv6 (65536)
      --ifindex [EXPORTER=]INDEX:wan|lan[=PREFIX,...]   where an interface of an
                          exporter leads, by its number there: to the Internet, or
                          to hosts with addresses in the prefixes; repeatable. It
                          tells whether a source is spoofed
      --seed NUMBER       make the selection predictable. For tests and
                          demonstrations only: whoever knows the seed can evade it

What is sent:
      --send LIST         notify the two ends of the flow by udp (port 65535), and post
                          to them by https, http or both (nothing: print only)
      --https-trust WHO   strict: certificates of HTTPS must be of the address and
                          by who this system trusts; any: they are not checked, so
                          that whoever is in between can read what is not sealed,
                          and no key is taken from there (strict)
      --seal WHEN         encrypt tracers so that their recipient only can read them:
                          never; prefer: if its key is known; require: always, and
                          who has no key is not told (prefer)
      --seal-key PREFIX=KEY   that key, as "overflow-receiver key" shows it, for
                          these addresses; repeatable (what they tell by themselves)
      --never PREFIX      addresses that are never told, as those by which equipment
                          is managed; repeatable (none)
      --private PREFIX    special-purpose addresses, as 10.0.0.0/8, that may be named
                          and notified all the same; repeatable (none)

What is received:
      --receive           take tracers that others send to us, at UDP port 65535: what
                          they say is logged and shown by "overflowd status", and who
                          is spoofed in our name learns of it
      --receive-to PREFIX addresses that are ours besides those of our interfaces;
                          repeatable (none)

Who you are:
      --contact-email ADDR      whom to write to
      --contact-identity NAME   the name of your network
      --contact-url URL         where to read more
      --contact-role ROLE       who that is: abuse, noc or tech
      --contacts FILE           who answers for parts of the network, a line each:
                                PREFIX; email=ADDR; role=ROLE; identity=NAME;
                                url=URL; asn=NUMBER, of which one is enough
      --asn NUMBER              your AS number
      --state DIR         where the signing key lives (root: /etc/overflowd;
                          others: $XDG_STATE_HOME/overflowd)
      --status SOCKET     where "overflowd status" asks (root:
                          /var/run/overflowd/status.sock; others:
                          $XDG_RUNTIME_DIR/overflowd/status.sock; not with -f)
      --user NAME         become this user once the sockets are open, and keep no
                          capability but CAP_NET_RAW for -i, and at rest
                          CAP_NET_ADMIN for --nat (overflowd, if started as root
                          and there is such a user)

  -h, --help              show this text
      --version           show the version
`

// raw is the command line as it was written.
type raw struct {
	pcapFile, udpPort, listen, rate, seed, send, state, user string
	email, identity, url, asn, remember, status              string
	frames, flows, thin                                      string
	boost, flood, suspects, maxSuspects, role, contacts      string
	trust, seal                                              string
	exporters, private, intervals, interfaces, exported      list
	receiveTo, sealKeys, never                               list
	conntrack, nat, receive                                  bool
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// FlagSet returns a flag set whose errors are returned and not printed.
func FlagSet(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	return fs
}

// StateFlag adds --state to a flag set.
func StateFlag(fs *flag.FlagSet) *string {
	return fs.String("state", "", "")
}

// Parse reads the arguments behind the program's name. An error names the
// option and the value.
func Parse(args []string) (*Config, error) {
	fs := FlagSet("overflowd")
	r := raw{}
	for _, f := range []struct {
		value       *string
		short, long string
		otherwise   string
	}{
		{&r.pcapFile, "f", "pcapfile", ""},
		{&r.udpPort, "u", "udpport", ""},
		{&r.listen, "", "listen", "127.0.0.1"},
		{&r.rate, "r", "rate", "0.000001"},
		{&r.seed, "", "seed", ""},
		{&r.send, "", "send", ""},
		{&r.trust, "", "https-trust", "strict"},
		{&r.seal, "", "seal", ""},
		{&r.user, "", "user", ""},
		{&r.remember, "", "max-exporters", "32"},
		{&r.status, "", "status", ""},
		{&r.frames, "", "frames", ""},
		{&r.flows, "", "flows", "8192"},
		{&r.thin, "", "thin", "1"},
		{&r.boost, "", "boost", "100"},
		{&r.flood, "", "flood", "100000"},
		{&r.suspects, "", "suspects", ""},
		{&r.maxSuspects, "", "max-suspects", "65536"},
		{&r.role, "", "contact-role", ""},
		{&r.contacts, "", "contacts", ""},
		{&r.email, "", "contact-email", ""},
		{&r.identity, "", "contact-identity", ""},
		{&r.url, "", "contact-url", ""},
		{&r.asn, "", "asn", ""},
	} {
		fs.StringVar(f.value, f.long, f.otherwise, "")
		if f.short != "" {
			fs.StringVar(f.value, f.short, f.otherwise, "")
		}
	}
	state := StateFlag(fs)
	fs.BoolVar(&r.conntrack, "conntrack", false, "")
	fs.BoolVar(&r.nat, "nat", false, "")
	fs.BoolVar(&r.receive, "receive", false, "")
	fs.Var(&r.receiveTo, "receive-to", "")
	fs.Var(&r.exporters, "exporter", "")
	fs.Var(&r.private, "private", "")
	fs.Var(&r.never, "never", "")
	fs.Var(&r.sealKeys, "seal-key", "")
	fs.Var(&r.intervals, "sampling-interval", "")
	fs.Var(&r.interfaces, "interface", "")
	fs.Var(&r.interfaces, "i", "")
	fs.Var(&r.exported, "ifindex", "")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	r.state = *state
	return r.validate()
}

func (r *raw) validate() (*Config, error) {
	c := &Config{PcapFile: r.pcapFile, User: r.user, Status: r.status, Receive: r.receive || len(r.receiveTo) > 0}
	if r.pcapFile != "" && c.Receive {
		return nil, errors.New("--pcapfile excludes --receive")
	}
	if r.pcapFile != "" && (r.udpPort != "" || len(r.interfaces) > 0 || r.conntrack || r.nat) {
		return nil, errors.New("--pcapfile excludes --udpport, --interface, --conntrack and --nat")
	}
	var err error
	if c.Rate, err = parseRate(r.rate); err != nil {
		return nil, err
	}
	if r.seed != "" {
		n, err := strconv.ParseUint(r.seed, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("--seed %q is not a number", r.seed)
		}
		c.Seed = new([32]byte)
		for i := range 8 {
			c.Seed[i] = byte(n >> (8 * i))
		}
	}
	for option, p := range map[string]struct {
		texts    []string
		prefixes *[]netip.Prefix
	}{"--exporter": {r.exporters, &c.Exporters}, "--private": {r.private, &c.Private}, "--receive-to": {r.receiveTo, &c.ReceiveTo}, "--never": {r.never, &c.Never}} {
		for _, text := range p.texts {
			prefix, err := prefix.Parse(text)
			if err != nil {
				return nil, fmt.Errorf("%s %q is not an address or a prefix as 192.0.2.0/24", option, text)
			}
			*p.prefixes = append(*p.prefixes, prefix)
		}
	}
	if err := r.exporting(c); err != nil {
		return nil, err
	}
	if err := r.capturing(c); err != nil {
		return nil, err
	}
	if r.pcapFile == "" && (r.udpPort != "" || len(r.interfaces) == 0 && !r.conntrack) {
		if err := r.listener(c); err != nil {
			return nil, err
		}
	}
	if err := r.contact(&c.Contact); err != nil {
		return nil, err
	}
	if c.Contacts, err = readContacts(r.contacts); err != nil {
		return nil, err
	}
	if err := r.sending(c); err != nil {
		return nil, err
	}
	if err := r.suspecting(c); err != nil {
		return nil, err
	}
	c.StateDir, err = StateDir(r.state)
	return c, err
}

// parseRate reads a chance: a decimal number, or a fraction.
func parseRate(text string) (float64, error) {
	bad := fmt.Errorf("--rate %q is not a chance above 0 and up to 1, as 0.000001 or 1/1000000", text)
	numerator, denominator, fraction := strings.Cut(text, "/")
	rate, err := strconv.ParseFloat(numerator, 64)
	if err != nil {
		return 0, bad
	}
	if fraction {
		d, err := strconv.ParseFloat(denominator, 64)
		if err != nil {
			return 0, bad
		}
		rate /= d
	}
	if !(rate > 0 && rate <= 1) {
		return 0, bad
	}
	return rate, nil
}

// maxRemember keeps the memory below 1 GB.
const maxRemember = 100_000

func (r *raw) exporting(c *Config) error {
	n, err := strconv.ParseUint(r.remember, 10, 32)
	if err != nil || n == 0 || n > maxRemember {
		return fmt.Errorf("--max-exporters %q is not a number from 1 to %d", r.remember, maxRemember)
	}
	c.Remember = int(n)
	for _, text := range r.intervals {
		prefixes, number := []netip.Prefix{everyIPv4, everyIPv6}, text
		if exporters, n, ok := strings.Cut(text, "="); ok {
			prefix, err := prefix.Parse(exporters)
			if err != nil {
				return fmt.Errorf("--sampling-interval %q does not begin with an address or a prefix as 192.0.2.0/24=100", text)
			}
			prefixes, number = []netip.Prefix{prefix}, n
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("--sampling-interval %q is not a number from 1 to 4294967295", text)
		}
		for _, p := range prefixes {
			c.Intervals = append(c.Intervals, source.Interval{Exporters: p, N: uint32(n)})
		}
	}
	return nil
}

var (
	everyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	everyIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

func (r *raw) listener(c *Config) error {
	port := uint64(7777)
	if r.udpPort != "" {
		var err error
		if port, err = strconv.ParseUint(r.udpPort, 10, 16); err != nil || port == 0 || port == tracer.Port {
			return fmt.Errorf("--udpport %q is not a port from 1 to 65534", r.udpPort)
		}
	}
	addr, err := netip.ParseAddr(r.listen)
	if err != nil {
		return fmt.Errorf("--listen %q is not an address", r.listen)
	}
	c.Listen = netip.AddrPortFrom(addr, uint16(port))
	if len(c.Exporters) == 0 {
		if !addr.IsLoopback() {
			return fmt.Errorf("--listen %s takes datagrams from the network: name those who may export with --exporter PREFIX", addr)
		}
		c.Exporters = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	return nil
}

func (r *raw) sending(c *Config) error {
	for _, transport := range strings.Split(r.send, ",") {
		switch transport {
		case "udp":
			c.SendUDP = true
		case "http":
			c.SendHTTP = true
		case "https":
			c.SendHTTPS = true
		default:
			if r.send != "" {
				return fmt.Errorf("--send %q is not of udp, http and https, with commas between", r.send)
			}
		}
	}
	if err := r.posting(c); err != nil {
		return err
	}
	switch {
	case !c.Sends():
		return nil
	case c.Contact.Empty():
		return errors.New("--send without a contact helps nobody: say who you are with --contact-email, --contact-identity, --contact-url or --asn")
	case c.Rate > sender.MaxRate:
		return fmt.Errorf("--rate %s with --send is at most 1/1000, so that nobody can aim tracers at somebody", r.rate)
	case c.Seed != nil:
		return errors.New("--seed with --send would let others predict which of their packets make a tracer")
	}
	return nil
}

// Sends tells whether tracers are sent in any way.
func (c *Config) Sends() bool { return c.SendUDP || c.SendHTTP || c.SendHTTPS }

// StateDir returns the folder of the signing key: the one that is named, or the
// usual one of this user.
func StateDir(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if os.Geteuid() == 0 {
		return "/etc/overflowd", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "overflowd"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("--state must name a folder for the signing key: there is no home folder")
	}
	return filepath.Join(home, ".local/state/overflowd"), nil
}

// systemSocket is where a program that was started as root has its status socket.
const systemSocket = "/var/run/overflowd/status.sock"

// StatusSocket returns the usual path of the status socket of this user, "" if
// there is none.
func StatusSocket() string {
	if os.Geteuid() == 0 {
		return systemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "overflowd/status.sock")
	}
	return ""
}

// RunningSocket returns the path of the status socket of this user's program, or
// of the system's if there is none.
func RunningSocket() string {
	if own := StatusSocket(); own != "" {
		if _, err := os.Stat(own); err == nil {
			return own
		}
	}
	return systemSocket
}
