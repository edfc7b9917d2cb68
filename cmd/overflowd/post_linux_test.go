// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/netns"
)

// posting is a lab of a router between two hosts, of which IPv4 and IPv6 are known:
//
//	att 45.83.0.2, 2600::2 -- ro1 -- 91.200.16.2, 2a00::2 vic
type posting struct {
	*lab
	att, ro1, vic, open, overflowd string
}

func newPosting(t *testing.T) *posting {
	netns.Need(t, "ip", "sysctl", "openssl", "tcpdump", "tshark", "nginx", "nft")
	suffix := strings.ReplaceAll(t.TempDir(), "/", "")
	name := func(s string) string { return s + suffix[max(0, len(suffix)-12):] }
	p := &posting{lab: &lab{t: t}, att: name("att"), ro1: name("ro1"), vic: name("vic"), open: openFolder(t), overflowd: filepath.Join(t.TempDir(), "overflowd")}
	for _, ns := range []string{p.att, p.ro1, p.vic} {
		p.namespace(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
	}
	p.link(p.att, "45.83.0.2/24", "2600::2/64", p.ro1, "45.83.0.1/24", "2600::1/64")
	p.link(p.ro1, "91.200.16.1/24", "2a00::1/64", p.vic, "91.200.16.2/24", "2a00::2/64")
	for _, r := range [][3]string{{p.att, "45.83.0.1", "2600::1"}, {p.vic, "91.200.16.1", "2a00::1"}} {
		p.run("ip", "-n", r[0], "route", "add", "default", "via", r[1])
		p.run("ip", "-n", r[0], "-6", "route", "add", "default", "via", r[2])
	}
	p.run("go", "build", "-o", p.overflowd, ".")
	return p
}

// certificate makes one of addresses, signed by itself, in PEM files.
func (p *posting) certificate(addrs ...string) (cert, key string) {
	cert, key = filepath.Join(p.open, "cert.pem"), filepath.Join(p.open, "key.pem")
	p.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
		"-addext", "subjectAltName=IP:"+strings.Join(addrs, ",IP:"), "-keyout", key, "-out", cert)
	p.run("chmod", "644", key)
	return cert, key
}

// router starts overflowd on what comes from the attacker.
func (p *posting) router(log io.Writer, env []string, args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", p.ro1, p.overflowd, "-i", "to-att:wan", "-r", "1/1000", "--state", filepath.Join(p.open, "state"),
		"--status", filepath.Join(p.open, "s.sock"), "--user", "nobody", "--contact-email", "abuse@carrier.example"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// flood sends packets to the victim for some seconds, by both families.
func (p *posting) flood(seconds int) {
	p.t.Helper()
	packets := fmt.Sprint(4000 * seconds)
	a := p.helper(p.att, "blast", "91.200.16.2:9", packets, "1000", "40")
	b := p.helper(p.att, "blast", "[2a00::2]:9", packets, "1000", "40")
	if !a.Scan() || !b.Scan() {
		p.t.Fatal("no traffic")
	}
}

// TestStrangersArePostedToOnce: servers that nobody wrote for tracers get what RFC 9110
// wants, refuse it, and are left alone.
func TestStrangersArePostedToOnce(t *testing.T) {
	p := newPosting(t)
	cert, key := p.certificate("91.200.16.2")
	access := filepath.Join(p.open, "access.log")
	config := filepath.Join(p.open, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `daemon off; master_process off; user root; pid %[1]s/nginx.pid; error_log %[1]s/error.log;
		events {}
		http {
			log_format all '$scheme $server_addr $request_method $request_uri $server_protocol $status $http_host $content_type $request_length';
			access_log %[2]s all;
			client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
			server { listen 80; listen [::]:80; listen 443 ssl; ssl_certificate %[3]s; ssl_certificate_key %[4]s; root %[1]s/none; }
		}`, p.open, access, cert, key), 0o644); err != nil {
		t.Fatal(err)
	}
	problems, python, log := &logged{}, &logged{}, &logged{}
	p.start(p.vic, problems, problems, "nginx", "-c", config, "-p", p.open)
	p.start(p.att, python, python, "/usr/bin/python3", "-u", "-m", "http.server", "--bind", "45.83.0.2", "--directory", t.TempDir(), "80")
	python.wait(t, "Serving HTTP")
	// A port where nobody answers.
	for _, rule := range []string{"add table inet f", "add chain inet f i { type filter hook input priority 0; }", "add rule inet f i tcp dport 443 drop"} {
		p.run("ip", "netns", "exec", p.att, "nft", rule)
	}
	p.router(log, []string{"SSL_CERT_FILE=" + cert}, "--send", "https,http")
	log.wait(t, "capturing on")
	p.flood(8)
	time.Sleep(4 * time.Second) // an attempt takes no longer
	text, err := os.ReadFile(access)
	if err != nil {
		t.Fatalf("%v: %s", err, problems)
	}
	got := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		got[regexp.MustCompile(` \d+$`).ReplaceAllString(line, "")]++
	}
	for _, want := range []string{
		"https 91.200.16.2 GET /.well-known/overflowd HTTP/1.0 404 91.200.16.2 -",
		"http 91.200.16.2 POST /.well-known/overflowd HTTP/1.1 404 91.200.16.2 application/json",
		"http 2a00::2 POST /.well-known/overflowd HTTP/1.1 404 [2a00::2] application/json",
	} {
		if got[want] != 1 {
			t.Errorf("%d times %s", got[want], want)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("also: %v", got)
	}
	if n := strings.Count(python.String(), "POST /.well-known/overflowd HTTP/1.1"); n != 1 || strings.Count(python.String(), "\" 501") != 1 {
		t.Errorf("%d requests of python's server:\n%s", n, python)
	}
	status, err := exec.Command("ip", "netns", "exec", p.ro1, p.overflowd, "status", "--json", "--status", filepath.Join(p.open, "s.sock")).Output()
	if err != nil || !regexp.MustCompile(`"posted":0,"unposted":4,"left_alone":[1-9]`).Match(status) {
		t.Errorf("status: %v: %s", err, status)
	}
}

// TestTracersAreSealedToWhoTellsAKey by HTTPS, with a certificate that is checked; and
// nobody on the way reads in them who is concerned.
func TestTracersAreSealedToWhoTellsAKey(t *testing.T) {
	p := newPosting(t)
	cert, key := p.certificate("91.200.16.2", "2a00::2")
	receiving := filepath.Join(t.TempDir(), "overflow-receiver")
	p.run("go", "build", "-o", receiving, "../overflow-receiver")
	state := filepath.Join(p.open, "receiver")
	p.run(receiving, "key", "--state", state)
	victim, log, dump := &logged{}, &logged{}, &logged{}
	p.start(p.vic, io.Discard, victim, receiving, "--to", "91.200.16.2", "--to", "2a00::2", "--state", state, "--https", "91.200.16.2:443", "--https", "[2a00::2]:443", "--cert", cert, "--key", key)
	victim.wait(t, "a signature takes")
	capture := filepath.Join(p.open, "way.pcap")
	dumping := p.start(p.vic, io.Discard, dump, "tcpdump", "-i", "to-ro1", "-U", "-w", capture, "tcp port 443 or udp port 65535")
	dump.wait(t, "listening on")
	router := p.router(log, []string{"SSL_CERT_FILE=" + cert}, "--send", "udp,https", "--seal", "require")
	log.wait(t, "capturing on")
	p.flood(10)
	time.Sleep(3 * time.Second)
	dumping.Process.Signal(syscall.SIGINT)
	dumping.Wait()
	memory, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", router.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("with TLS and HPKE in use: %s", regexp.MustCompile(`(?m)^(VmRSS|RssAnon).*`).FindAll(memory, -1))
	out, err := exec.Command(receiving, "report", "--to", "91.200.16.2", "--to", "2a00::2", "--state", state).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("To 91.200.16.2 udp port 9")) && !bytes.Contains(out, []byte("91.200.16.2 udp port 9: at least")) || !bytes.Contains(out, []byte("2a00::2")) {
		t.Errorf("%v: %s", err, out)
	}
	way, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"45.83.0.2", "2600::2", "91.200.16.2", "2a00::2", "abuse@carrier", "saddr", "dport", "OVERFLW1"} {
		if bytes.Contains(way, []byte(clear)) {
			t.Errorf("%s can be read on the way", clear)
		}
	}
	n, err := exec.Command("tshark", "-r", capture, "-Y", "udp.dstport == 65535 && data.data[0:8] == 4f:56:45:52:46:4c:57:53", "-T", "fields", "-e", "frame.number").Output()
	if err != nil || len(bytes.Fields(n)) < 2 {
		t.Errorf("%v: sealed datagrams: %s", err, n)
	}
	status, err := exec.Command("ip", "netns", "exec", p.ro1, p.overflowd, "status", "--json", "--status", filepath.Join(p.open, "s.sock")).Output()
	if err != nil || !regexp.MustCompile(`"sealed":[1-9]\d*,"unsealed":\d+,"impostors":0,"forgotten":0,"posted":[1-9]`).Match(status) {
		t.Errorf("status: %v: %s\n%s", err, status, log)
	}
}

// TestAVictimAsksForMore by its receipts, and gets them: packets to it are then selected
// with the chance of suspected ones, which each tracer tells.
func TestAVictimAsksForMore(t *testing.T) {
	p := newPosting(t)
	receiving := filepath.Join(t.TempDir(), "overflow-receiver")
	p.run("go", "build", "-o", receiving, "../overflow-receiver")
	victim, log := &logged{}, &logged{}
	p.start(p.vic, io.Discard, victim, receiving, "--to", "91.200.16.2", "--to", "2a00::2", "--state", filepath.Join(p.open, "receiver"), "--more", "91.200.16.2")
	victim.wait(t, "a signature takes")
	p.router(log, nil, "-r", "1/4000", "--send", "udp")
	log.wait(t, "capturing on")
	p.flood(15)
	time.Sleep(time.Second)
	for to, want := range map[string]string{`"to":"91.200.16.2"`: "0.001", `"to":"2a00::2"`: "0.00025"} {
		last := ""
		for _, line := range strings.Split(log.String(), "\n") {
			if strings.Contains(line, to) {
				last = line
			}
		}
		if !strings.Contains(last, `"rate":`+want+`,`) || !strings.Contains(last, `"class":"INFORMATIONAL"`) {
			t.Errorf("the last tracer with %s has not the chance %s: %s", to, want, last)
		}
	}
}
