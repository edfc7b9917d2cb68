// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// router is what the init script finds around it.
type router struct {
	config   string // of UCI
	bad      string // options that validate_data refuses, as section.option
	networks string // those that are up, with their devices
	users    string
	noJail   bool
	function string // of the script, if not start_service
}

// shell holds the only programs that the script may use: they are in the BusyBox of
// each OpenWrt. (An ash with applets built in finds others, too: testdata/procd.sh
// forbids those that OpenWrt lacks.)
var shell = []string{"find", "grep", "head", "mkdir", "readlink", "rm", "sed"}

// odd is a name that a shell would take apart.
const odd = `Example * Net; $(reboot) "of" ours`

// start runs start_service under BusyBox's ash, with the program itself for its check,
// and returns what was recorded: by the name of a parameter, or log.
func start(t *testing.T, program string, r router) map[string][]string {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path(name)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, folder := range []string{"bin", "certificates"} {
		if err := os.Mkdir(path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, applet := range shell {
		if err := os.Symlink(busybox, path("bin/"+applet)); err != nil {
			t.Fatal(err)
		}
	}
	script := read(t, service+"overflowd.init")
	for old, name := range map[string]string{
		"PROG=/usr/bin/overflowd": "PROG=" + program, "STATE=/etc/overflowd": "STATE=" + path("state"), "RUN=/var/run/overflowd": "RUN=" + path("run"), "OPEN=/var/run/overflowd.open": "OPEN=" + path("open"),
		"/lib/functions/network.sh": write("network.sh", "", 0o644), "/etc/passwd": write("passwd", r.users, 0o644),
		"/etc/group": write("group", "overflowd:x:7777:\nnogroup:x:65534:\n", 0o644), "/sbin/ujail": path("ujail"), "=/etc/ssl/certs": "=" + path("certificates"),
	} {
		if !strings.Contains(script, old) {
			t.Fatalf("the script says nothing of %s", old)
		}
		script = strings.ReplaceAll(script, old, name)
	}
	if !r.noJail {
		write("ujail", "", 0o755)
	}
	stub, err := filepath.Abs("testdata/procd.sh")
	if err != nil {
		t.Fatal(err)
	}
	function := r.function
	if function == "" {
		function = "start_service"
	}
	run := fmt.Sprintf(". %s\n. %s\n. %s\n%s\n", stub, write("uci.sh", variables(t, r.config), 0o644), write("init.sh", script, 0o644), function)
	write(strings.Replace(odd, "*", "of", 1), "", 0o644) // it matches as a pattern
	cmd := exec.Command(busybox, "ash", "-c", run)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + path("bin"), "RECORD=" + write("record", "", 0o644), "BAD=" + r.bad, "NETWORKS=" + r.networks}
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	got := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSuffix(read(t, path("record")), "\n"), "\n") {
		name, rest, _ := strings.Cut(line, "\x1f")
		rest = strings.NewReplacer(path("state"), "STATE", path("run"), "RUN", program, "PROG", path("certificates"), "CERTIFICATES").Replace(rest)
		got[name] = append(got[name], strings.Split(rest, "\x1f")...)
	}
	return got
}

// variables writes a configuration of UCI as testdata/procd.sh takes it.
func variables(t *testing.T, config string) string {
	var b strings.Builder
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	lists := map[string]string{}
	section, sections := "", ""
	for _, line := range strings.Split(config, "\n") {
		line = strings.TrimSpace(line)
		m := regexp.MustCompile(`^(config|option|list) (\w+) '(.*)'$`).FindStringSubmatch(line)
		switch {
		case line == "" || line[0] == '#':
		case m == nil:
			t.Fatalf("what is %q?", line)
		case m[1] == "config":
			section = m[3]
			sections += " " + section
			fmt.Fprintf(&b, "TYPE_%s=%s\n", section, m[2])
		default:
			name := "VALUE_" + section + "_" + m[2]
			lists[name] = strings.TrimSpace(lists[name] + " " + m[3])
			if m[1] == "option" {
				lists[name] = m[3]
			}
			fmt.Fprintf(&b, "%s=%s\n", name, quote(lists[name]))
		}
	}
	return b.String() + "SECTIONS=" + quote(sections) + "\n"
}

const (
	bothUsers  = "root:x:0:0:root:/root:/bin/ash\nnobody:*:65534:65534:nobody:/var:/bin/false\noverflowd:x:7777:7777:overflowd:/var/run/overflowd:/bin/false\n"
	onlyNobody = "root:x:0:0:root:/root:/bin/ash\nnobody:*:65534:65534:nobody:/var:/bin/false\n"
	onlyRoot   = "root:x:0:0:root:/root:/bin/ash\n"
)

// TestInitScript: UCI becomes arguments that the program takes, or one line of the log.
func TestInitScript(t *testing.T) {
	program := filepath.Join(t.TempDir(), "overflowd")
	build := exec.Command("go", "build", "-o", program, "./cmd/overflowd")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := t.TempDir()
	for name, text := range map[string]string{"lists/all": "192.0.2.0/24\n2001:db8::/48 a comment\n", "lists/bad": "192.0.2.0/24\nnobody\n", "lists/a list": "", "secret": "",
		"contacts": "192.0.2.0/24; email=abuse@customer.example\n", "badcontacts": "192.0.2.0/24\n"} {
		name = filepath.Join(files, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(files+"/contacts", files+"/lists/link"), os.Chmod(files+"/secret", 0o600)); err != nil {
		t.Fatal(err)
	}
	shipped := read(t, service+"overflowd.config")
	enabled := strings.Replace(shipped, "option enabled '0'", "option enabled '1'", 1)
	usual := strings.Replace(enabled, "#option email", "option email", 1)
	// set is a configuration with a value.
	set := func(option, value string) string {
		return "config overflowd 'general'\noption enabled '1'\noption receive '1'\noption " + option + " '" + value + "'\n"
	}
	const tail = " --state STATE --status RUN/status.sock"
	up := "wan=eth1 wan6=eth1 lan=br-lan"

	for _, test := range []struct {
		name   string
		router router
		argv   string // behind the program, its words separated by a space
		log    string
		others map[string]string
		asRoot bool // can only be seen by root
	}{
		{name: "the shipped configuration starts nothing", router: router{config: shipped, networks: up, users: bothUsers}},
		{name: "enabled without a contact", router: router{config: enabled, networks: up, users: bothUsers},
			log: "daemon.err option send without a contact helps nobody: say who you are with --contact-email, --contact-identity, --contact-url or --asn"},
		{name: "the three lines of the README", router: router{config: usual, networks: up, users: bothUsers},
			argv: "--send udp --contact-email abuse@example.net --interface eth1:wan" + tail,
			others: map[string]string{"user": "overflowd", "group": "overflowd", "capabilities": "/etc/capabilities/overflowd.json", "no_new_privs": "1", "respawn": "3600 5 0",
				"env": "GOMEMLIMIT=12MiB GOGC=50", "rw": "STATE RUN", "file": "PROG", "term_timeout": "10", "stdout": "0", "stderr": "1"}},
		{name: "the networks are not up yet", router: router{config: usual, users: bothUsers},
			log: "daemon.notice waiting for the network wan wan6 to be up"},
		{name: "one of the networks is up", router: router{config: usual, networks: "wan=pppoe-wan", users: bothUsers},
			argv: "--send udp --contact-email abuse@example.net --interface pppoe-wan:wan" + tail,
			log:  "daemon.notice waiting for the network wan6 to be up"},
		{name: "without ujail the program becomes the user", router: router{config: usual, networks: up, users: bothUsers, noJail: true},
			argv:   "--send udp --contact-email abuse@example.net --interface eth1:wan" + tail + " --user overflowd",
			others: map[string]string{"user": "", "capabilities": "", "rw": ""}},
		{name: "the user is missing", router: router{config: usual, networks: up, users: onlyNobody},
			argv:   "--send udp --contact-email abuse@example.net --interface eth1:wan" + tail,
			log:    "daemon.warn there is no user overflowd: running as nobody",
			others: map[string]string{"user": "nobody", "group": "nogroup"}},
		{name: "there is nobody to run as", router: router{config: usual, networks: up, users: onlyRoot},
			log: "daemon.err there is neither a user overflowd nor nobody to run as"},
		{name: "an option that validate_data refuses", router: router{config: strings.Replace(usual, "#option flows '8192'", "option flows '-3'", 1), bad: "general.flows", networks: up, users: bothUsers},
			log: "daemon.err option general.flows=-3 is not valid, it is uinteger"},
		{name: "an option of another section", router: router{config: strings.Replace(usual, "option role 'wan'", "option role 'dmz'", 1), bad: "wan.role", networks: up, users: bothUsers},
			log: `daemon.err option wan.role=dmz is not valid, it is or("wan", "lan")`},
		{name: "a rate that only the program refuses", router: router{config: strings.Replace(usual, "#option rate '1/1000000'", "option rate 'often'", 1), networks: up, users: bothUsers},
			log: `daemon.err option rate "often" is not a chance above 0 and up to 1, as 0.000001 or 1/1000000`},
		{name: "a number that only the program refuses", router: router{config: strings.Replace(usual, "#option max_exporters '32'", "option max_exporters '0'", 1), networks: up, users: bothUsers},
			log: `daemon.err option max_exporters "0" is not a number from 1 to 100000`},
		{name: "an exporter without an address", router: router{config: usual + "\nconfig exporter 'other'\n", networks: up, users: bothUsers},
			log: "daemon.err the exporter section other has no option prefix"},
		{name: "nothing to watch", router: router{config: strings.Replace(usual, "config interface 'wan'\n\toption enabled '1'", "config interface 'wan'\n\toption enabled '0'", 1), networks: up, users: bothUsers},
			log: "daemon.err nothing to watch: enable an interface, an exporter, conntrack or receive"},
		{name: "hosts on the other side", router: router{config: strings.Replace(usual, "option role 'wan'", "option role 'lan'", 1), networks: up, users: bothUsers},
			argv:   "--send udp --contact-email abuse@example.net --interface eth1:lan" + tail,
			others: map[string]string{"capabilities": "/etc/capabilities/overflowd-nat.json"}},
		{name: "all that can be set", router: router{networks: up, users: bothUsers, config: `
			config overflowd 'general'
				option enabled '1'
				list send 'udp'
				list send 'https'
				option https_trust 'any'
				option seal 'require'
				list seal_key '192.0.2.0/24=de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f'
				list never '198.51.100.0/24'
				option rate '1/2000'
				option boost '50'
				option flood '9000'
				option suspects '` + files + `/lists/all'
				option max_suspects '1000'
				option contacts '` + files + `/lists/link'
				option receive '1'
				list receive_to '192.0.2.0/24'
				list receive_to '2001:db8::/48'
				option log_tracers '1'
				list private '10.0.0.0/8'
				list private 'fd00::/8'
				option flows '1000'
				option thin 'auto'
				option conntrack '1'
				option nat '1'
				option listen '::1'
				option udpport '9995'
				option max_exporters '7'
				option memlimit '20'
				option gc '100'
			config interface 'one'
				list network 'wan'
				list device 'eth7'
				list device 'eth8'
			config interface 'two'
				list network 'wan6'
			config exporter 'three'
				option prefix '192.0.2.0/24'
				option sampling_interval '100'
				list ifindex '3:lan=198.51.100.0/24'
				list ifindex '7:wan'
			config contact 'contact'
				option email 'abuse@example.net'
				option identity '` + odd + `'
				option url 'https://a.net/?b&c=d'
				option role 'noc'
				option asn 'AS64496'
			`},
			argv: "--send udp,https --private 10.0.0.0/8 --private fd00::/8 --https-trust any --seal require " +
				"--seal-key 192.0.2.0/24=de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f --never 198.51.100.0/24 --rate 1/2000 --boost 50 --flood 9000 --suspects " + files + "/lists/all --max-suspects 1000 --contacts " + files + "/lists/link --flows 1000 --max-exporters 7 --contact-email abuse@example.net " +
				"--contact-identity " + odd + " --contact-url https://a.net/?b&c=d --contact-role noc --asn AS64496 " +
				"--interface eth7 --interface eth8 --interface eth1 --exporter 192.0.2.0/24 --sampling-interval 192.0.2.0/24=100 --ifindex 192.0.2.0/24=3:lan=198.51.100.0/24 --ifindex 192.0.2.0/24=7:wan --thin auto --udpport 9995 --listen ::1 --conntrack --nat --receive --receive-to 192.0.2.0/24 --receive-to 2001:db8::/48" + tail,
			others: map[string]string{"env": "GOMEMLIMIT=20MiB GOGC=100", "capabilities": "/etc/capabilities/overflowd-nat.json", "stdout": "1", "file": "PROG " + files + "/lists/link",
				"ro": files + "/lists " + files + " CERTIFICATES", "data": "firewall[{ type=rule src=* proto=udp dest_port=65535 target=ACCEPT}]", "changed": ""}},
		{name: "the firewall is told once procd knows", router: router{config: strings.Replace(usual, "#option receive '0'", "option receive '1'", 1), networks: up, users: bothUsers,
			function: "start_service; service_started; service_started; start_service; service_started; service_stopped; service_stopped"},
			argv:   strings.TrimSuffix(strings.Repeat("--send udp --contact-email abuse@example.net --interface eth1:wan --receive"+tail+" PROG ", 2), " PROG "),
			others: map[string]string{"changed": "firewall firewall", "data": "firewall[{ type=rule src=* proto=udp dest_port=65535 target=ACCEPT}] firewall[{ type=rule src=* proto=udp dest_port=65535 target=ACCEPT}]"}},
		{name: "the firewall is let alone", router: router{config: usual, networks: up, users: bothUsers, function: "start_service; service_started; service_stopped"},
			argv:   "--send udp --contact-email abuse@example.net --interface eth1:wan" + tail,
			others: map[string]string{"changed": "", "data": "", "ro": ""}},
		{name: "a list that is not there", router: router{config: set("suspects", "/nowhere/list"), networks: up, users: bothUsers},
			log: "daemon.err option suspects /nowhere/list: no such file or directory"},
		{name: "a list with a line that is no prefix", router: router{config: set("suspects", files+"/lists/bad"), networks: up, users: bothUsers},
			log: "daemon.err option suspects " + files + `/lists/bad: line 2: "nobody" is not an address or a prefix as 192.0.2.0/24`},
		{name: "a list that is too long", router: router{config: set("suspects", files+"/lists/all") + "option max_suspects '1'", networks: up, users: bothUsers},
			log: "daemon.err option suspects " + files + "/lists/all: line 2: too many prefixes: the limit is 1 (--max-suspects)"},
		{name: "a list in no folder", router: router{config: set("suspects", "/list"), networks: up, users: bothUsers},
			log: `daemon.err option suspects "/list" is not the name of a file as STATE/suspects, in a folder, and without spaces`},
		{name: "a list whose name has no folder", router: router{config: set("suspects", "list"), networks: up, users: bothUsers},
			log: `daemon.err option suspects "list" is not the name of a file as STATE/suspects, in a folder, and without spaces`},
		{name: "a list with a space in its name", router: router{config: set("suspects", files+"/lists/a list"), networks: up, users: bothUsers},
			log: `daemon.err option suspects "` + files + `/lists/a list" is not the name of a file as STATE/suspects, in a folder, and without spaces`},
		{name: "contacts that are not there", router: router{config: set("contacts", "/nowhere/contacts"), networks: up, users: bothUsers},
			log: "daemon.err option contacts /nowhere/contacts: no such file or directory"},
		{name: "contacts of a line without one", router: router{config: set("contacts", files+"/badcontacts"), networks: up, users: bothUsers},
			log: "daemon.err option contacts " + files + "/badcontacts: line 1: nobody can be reached: give an email, an identity, a url or an asn"},
		{name: "a boost of nothing", router: router{config: set("boost", "0"), networks: up, users: bothUsers},
			log: `daemon.err option boost "0" is neither a number from 1 to 1000000 nor off`},
		{name: "an address of ours that is none", router: router{config: set("receive", "1") + "list receive_to 'here'", networks: up, users: bothUsers},
			log: `daemon.err option receive_to "here" is not an address or a prefix as 192.0.2.0/24`},
		{name: "an interface of an exporter that leads nowhere", router: router{config: set("receive", "1") + "config exporter 'x'\noption prefix '192.0.2.1'\nlist ifindex '3:dmz'", networks: up, users: bothUsers},
			log: `daemon.err option ifindex "192.0.2.1=3:dmz" is not as 12:wan, 192.0.2.1=3:lan or 3:lan=198.51.100.0/24,2001:db8::/32`},
		{name: "nothing but the tracers of others", router: router{networks: up, users: bothUsers, config: "config overflowd 'general'\noption enabled '1'\noption receive '1'"},
			argv: "--receive" + tail},
		{name: "a list that the user may not read", asRoot: true, router: router{config: set("suspects", files+"/secret"), users: onlyNobody},
			log: "daemon.warn there is no user overflowd: running as nobody daemon.err option suspects " + files + "/secret: permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.asRoot && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			got := start(t, program, test.router)
			command := strings.Join(got["command"], " ")
			if want := strings.TrimSuffix("PROG "+test.argv, " "); test.argv == "" && command != "" || test.argv != "" && command != want {
				t.Errorf("(-want +got)\n%s", cmp.Diff(want, command))
			}
			if diff := cmp.Diff(test.log, strings.Join(got["log"], " ")); diff != "" {
				t.Errorf("log (-want +got)\n%s", diff)
			}
			for name, want := range test.others {
				if got := strings.Join(got[name], " "); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			for i, word := range got["command"] {
				if word == "--contact-identity" && got["command"][i+1] != odd {
					t.Errorf("the name became %q", got["command"][i+1])
				}
			}
		})
	}
}

// TestTriggers: what calls for a reload. Procd's shell library leaves no rule at all
// where the array of them is opened twice.
func TestTriggers(t *testing.T) {
	got := start(t, "/bin/false", router{config: read(t, service+"overflowd.config"), users: bothUsers, function: "service_triggers"})
	want := map[string][]string{
		"trigger": {
			"interface.update", "wan", "/etc/init.d/overflowd", "reload",
			"interface.update", "wan6", "/etc/init.d/overflowd", "reload",
		},
		"reload":   {"overflowd"},
		"validate": {"open", "close"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
