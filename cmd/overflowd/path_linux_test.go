// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/netns"
)

// logged collects what a program writes.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// wait waits until a text was written.
func (l *logged) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(l.String(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", text, l)
		}
	}
}

// TestTheVictimLearnsThePathOfASpoofedFlood and the one in whose name it is sent
// learns that it happens. The second of three routers in a row takes no part.
//
//	att 45.83.0.2 -- ro1 -- ro2 -- ro3 -- 91.200.16.2 vic
//	                         |
//	                        spo 45.90.0.2
func TestTheVictimLearnsThePathOfASpoofedFlood(t *testing.T) {
	netns.Need(t, "ip", "sysctl")
	l := &lab{t: t}
	suffix := strings.ReplaceAll(t.TempDir(), "/", "")
	name := func(s string) string { return s + suffix[max(0, len(suffix)-12):] }
	att, ro1, ro2, ro3, vic, spo := name("att"), name("ro1"), name("ro2"), name("ro3"), name("vic"), name("spo")
	for _, ns := range []string{att, ro1, ro2, ro3, vic, spo} {
		l.namespace(ns, "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	}
	l.link(att, "45.83.0.2/24", "", ro1, "45.83.0.1/24", "")
	l.link(ro1, "11.0.1.1/24", "", ro2, "11.0.1.2/24", "")
	l.link(ro2, "11.0.2.1/24", "", ro3, "11.0.2.2/24", "")
	l.link(ro3, "91.200.16.1/24", "", vic, "91.200.16.2/24", "")
	l.link(spo, "45.90.0.2/24", "", ro2, "45.90.0.1/24", "")
	for _, r := range [][3]string{{att, "default", "45.83.0.1"}, {ro1, "default", "11.0.1.2"}, {ro2, "45.83.0.0/24", "11.0.1.1"}, {ro2, "91.200.16.0/24", "11.0.2.2"},
		{ro3, "default", "11.0.2.1"}, {vic, "default", "91.200.16.1"}, {spo, "default", "45.90.0.1"}} {
		l.run("ip", "-n", r[0], "route", "add", r[1], "via", r[2])
	}
	l.run("ip", "-n", att, "addr", "add", "45.90.0.2/32", "dev", "lo") // in whose name it sends

	open := openFolder(t)
	overflowd, receiving := filepath.Join(t.TempDir(), "overflowd"), filepath.Join(t.TempDir(), "overflow-receiver")
	l.run("go", "build", "-o", overflowd, ".")
	l.run("go", "build", "-o", receiving, "../overflow-receiver")
	victim, first, third, spoofed := &logged{}, &logged{}, &logged{}, &logged{}
	state := filepath.Join(open, "receiver")
	server := l.start(vic, io.Discard, victim, receiving, "--to", "91.200.16.2", "--state", state, "--receipts")
	key, err := exec.Command(overflowd, "key", "recipient", "--state", filepath.Join(open, "spo")).Output()
	if err != nil {
		t.Fatal(err)
	}
	l.start(spo, io.Discard, spoofed, overflowd, "-i", "to-ro2:wan", "--receive", "--state", filepath.Join(open, "spo"), "--status", filepath.Join(open, "spo.sock"), "--user", "nobody")
	spoofed.wait(t, "capturing on to-ro2")
	spoofed.wait(t, "receiving tracers at port 65535")
	victim.wait(t, "a signature takes")
	for _, r := range []struct {
		ns, from, who string
		log           *logged
	}{{ro1, "to-att", "one", first}, {ro3, "to-ro2", "three", third}} {
		l.start(r.ns, io.Discard, r.log, overflowd, "-i", r.from+":wan", "-r", "1/1000", "--send", "udp", "--state", filepath.Join(open, r.who), "--status", filepath.Join(open, r.who+".sock"),
			"--seal-key", "45.90.0.2="+strings.TrimSpace(string(key)), "--user", "nobody", "--contact-email", "abuse@"+r.who+".example", "--contact-identity", "Router "+r.who)
		r.log.wait(t, "capturing on")
	}
	// What the spoofed one sends itself is no alarm; and it has to watch for as long
	// as clocks may differ.
	own := l.helper(spo, "blast", net.JoinHostPort("91.200.16.2", "9999"), "10000", "1000", "10")
	time.Sleep(11 * time.Second)
	flood := l.helper(att, "blast-from", "45.90.0.2", net.JoinHostPort("91.200.16.2", "80"), "40000", "1000", "100")
	// A tracer is of the last packet selected before it goes, one in three seconds: those
	// that are told last are of this flood only.
	elsewhere := l.helper(att, "blast-from", "45.90.0.2", net.JoinHostPort("11.0.2.2", "53"), "110000", "1000", "100")
	for _, s := range []interface{ Scan() bool }{flood, elsewhere, own} {
		if !s.Scan() {
			t.Fatal("no traffic")
		}
	}
	var told struct {
		Attacks []struct {
			Destination string
			Port        int
			Sources     []struct{ Address string }
			Carriers    []struct {
				Hops    *int
				Contact struct{ Email, Identity string }
				Packets float64
				Percent float64
			}
		}
	}
	report := func(format string) []byte {
		out, err := exec.Command(receiving, "report", "--to", "91.200.16.2", "--state", state, "--format", format, "--email", "noc@victim.example").CombinedOutput()
		if err != nil {
			t.Fatalf("report: %v: %s", err, out)
		}
		return out
	}
	time.Sleep(2 * time.Second) // until what was taken is in the file
	if err := json.Unmarshal(report("json"), &told); err != nil {
		t.Fatal(err)
	}
	found, sum := false, map[string]float64{}
	for _, a := range told.Attacks {
		for _, c := range a.Carriers {
			sum[c.Contact.Identity] += c.Packets
		}
		if a.Port != 80 {
			continue
		}
		found = true
		if len(a.Carriers) != 2 || a.Sources[0].Address != "45.90.0.2" {
			t.Fatalf("%s", report("text"))
		}
		for i, want := range []struct {
			hops int
			who  string
		}{{2, "one"}, {0, "three"}} {
			c := a.Carriers[i]
			if c.Hops == nil || *c.Hops != want.hops || c.Contact.Email != "abuse@"+want.who+".example" || c.Contact.Identity != "Router "+want.who {
				t.Errorf("carrier %d: %+v, want %+v", i, c, want)
			}
			// The limits make of it few tracers, so which of two flows they are about is
			// known roughly.
			if c.Packets < 40_000*(1-2*c.Percent/100) || c.Packets > 60_000*(1+2*c.Percent/100) {
				t.Errorf("%s tells of %.0f packets ±%.0f %% of 40,000", want.who, c.Packets, c.Percent)
			}
		}
	}
	if !found {
		t.Fatalf("%s\n%s\n%s\n%s", report("text"), victim, first, third)
	}
	// But all that was selected is in them: a few dozen packets.
	for who, want := range map[string]float64{"Router one": 40_000, "Router three": 50_000} {
		if sum[who] < want*0.3 || sum[who] > want*1.7 {
			t.Errorf("%s tells of %.0f packets in all, want %.0f", who, sum[who], want)
		}
	}
	t.Logf("the victim's report:\n%s", report("text"))
	for ns, socket := range map[string]string{ro1: "one.sock", ro3: "three.sock"} {
		status, err := exec.Command("ip", "netns", "exec", ns, overflowd, "status", "--json", "--status", filepath.Join(open, socket)).Output()
		if err != nil || !regexp.MustCompile(`"receipts":[1-9].*"sealed":[1-9]`).Match(status) {
			t.Errorf("no receipt came back, or none was sealed: %v: %s", err, status)
		}
	}
	// Of the carriers the one whose tracer came first is named.
	spoofed.wait(t, "SPOOFED: somebody sends in the name of 45.90.0.2: Router ")
	if alarm := regexp.MustCompile(`SPOOFED: .* Router (one abuse@one|three abuse@three)\.example \(key [0-9a-f]{16}, .* of a flow from 45\.90\.0\.2 to 11\.0\.2\.2 port 53,`); !alarm.MatchString(spoofed.String()) {
		t.Errorf("the alarm is another:\n%s", spoofed)
	}
	status, err := exec.Command("ip", "netns", "exec", spo, overflowd, "status", "--status", filepath.Join(open, "spo.sock")).CombinedOutput()
	if err != nil || !regexp.MustCompile(`SPOOFED +\d+ tracers? of flows in our name that we did not send; the last from 45\.90\.0\.2 to `).Match(status) {
		t.Errorf("status: %v: %s", err, status)
	}
	t.Logf("the status of the spoofed one:\n%s", status)
	for _, line := range strings.Split(spoofed.String(), "\n") {
		if strings.Contains(line, "SPOOFED") && strings.Contains(line, "port 9999") {
			t.Errorf("an alarm for what it has sent itself: %s", line)
		}
	}
	server.Process.Signal(syscall.SIGTERM)
	if err := server.Wait(); err != nil {
		t.Errorf("the receiver ended with %v:\n%s", err, victim)
	}
	if _, err := os.Stat(filepath.Join(state, "ledger.db")); err != nil {
		t.Error(err)
	}
}
