// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/store"
	"github.com/overflowd/overflowd/internal/tracer"
)

var us = netip.MustParseAddr("203.0.113.5")

var nonce atomic.Uint64

// signed returns a tracer of a key about a flow to us.
func signed(key byte, change func(*tracer.Tracer)) tracer.Signed {
	m := tracer.Tracer{Time: time.Now().UnixMilli(), Rate: 1e-6, Selected: 3, To: us, Contact: tracer.Contact{Email: "abuse@example.net", Identity: "Example Net", ASN: 64500}}
	m.Flow.Family, m.Flow.Protocol, m.Flow.SrcPort, m.Flow.DstPort = flow.IPv4, 17, 53, 80
	m.Flow.Src, m.Flow.Dst = [16]byte{192, 0, 2, 7}, [16]byte{203, 0, 113, 5}
	m.Flow.Known = flow.HasPorts | flow.HasPackets | flow.HasBytes
	m.Flow.Packets, m.Flow.Bytes = 1000, 1_400_000
	copy(m.Nonce[:], fmt.Sprintf("%08d", nonce.Add(1)))
	if change != nil {
		change(&m)
	}
	return tracer.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{key}, ed25519.SeedSize)), m.AppendMessage(nil))
}

// received is a tracer of a router so many hops away, as it came.
func received(t testing.TB, s tracer.Signed, hops int, level receiver.Level, at time.Time) *receiver.Received {
	m, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	return &receiver.Received{Message: m, Signed: s, From: netip.AddrFrom4([4]byte{198, 51, 100, byte(hops)}), Hops: hops, Level: level, Arrived: at}
}

// running is a server on the loopback.
type running struct {
	udp, http, web string
	stop           func() error
	log            *lines
}

type lines struct{ lines chan string } // of 64, never closed; when it is full the test waits for ever

func (l *lines) Write(b []byte) (int, error) {
	l.lines <- string(b)
	return len(b), nil
}

func start(t testing.TB, dir string) *running {
	r := &running{log: &lines{make(chan string, 64)}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{To: []netip.Prefix{netip.PrefixFrom(us, 32)}, Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, HTTP: []string{"127.0.0.1:0"},
			Web: "127.0.0.1:0", State: dir, Limits: store.Limits{Size: 1 << 20}, Keys: 1000, CPU: 1, Version: "test", Log: log.New(r.log, "", 0), Email: "noc@example.com", Org: "Us"})
	}()
	for r.udp == "" || r.http == "" || r.web == "" {
		select {
		case line := <-r.log.lines:
			words := strings.Fields(line)
			last := words[len(words)-1]
			switch {
			case strings.HasPrefix(line, "receiving tracers at"):
				r.udp = strings.TrimSuffix(last, "/udp")
			case strings.HasPrefix(line, "taking tracers by HTTP at"):
				r.http = "http://" + last + WellKnown
			case strings.HasPrefix(line, "showing them"):
				r.web = "http://" + last
			}
		case err := <-done:
			t.Fatal(err)
		}
	}
	r.stop = func() error { cancel(); return <-done }
	return r
}

func get(t testing.TB, url string) (int, http.Header, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// until asks again and again until what it got has a text.
func until(t testing.TB, url, want string) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, text := get(t, url)
		if strings.Contains(text, want) {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no %q:\n%.3000s", url, want, text)
		}
	}
}

// TestAServer is the whole of it: UDP, HTTP, the page, the metrics, the files, and
// all of it once more after a restart.
func TestAServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r := start(t, dir)
	c, err := net.Dial("udp", r.udp)
	if err != nil {
		t.Fatal(err)
	}
	first := signed(1, nil)
	c.Write(first.AppendDatagram(nil))
	until(t, r.web+"/live.json", "Example Net")
	c.Write([]byte("OVERFLW1 noise"))
	exposition(t, until(t, r.web+"/metrics", `overflow_receiver_tracers_total{result="form"} 1`))

	other := signed(2, nil)
	forged := signed(3, nil)
	forged.Signature[0] ^= 1
	sealed := append([]byte("OVERFLWS"), make([]byte, 300)...)
	elsewhere := signed(2, func(m *tracer.Tracer) { m.To = netip.MustParseAddr("203.0.113.6") })
	for _, x := range []struct {
		what string
		body []byte
		want int
	}{
		{"a line", other.AppendLine(nil), 204},
		{"the same again", other.AppendLine(nil), 208},
		{"one that came by UDP", first.AppendDatagram(nil), 208},
		{"a forged one", forged.AppendLine(nil), 400},
		{"for another", elsewhere.AppendLine(nil), 421},
		{"a sealed one", sealed, 415},
		{"nothing", nil, 400},
		{"text", []byte("hello"), 400},
		{"too much", make([]byte, maxBody+1), 413},
	} {
		resp, err := http.Post(r.http, "application/json", bytes.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("%s: %d, want %d", x.what, resp.StatusCode, x.want)
		}
	}
	if code, h, text := get(t, r.http); code != 200 || h.Get("Content-Type") != "application/json" || text != "{\"overflowd\":1}\n" {
		t.Errorf("GET of the well-known path: %d %s", code, text)
	}
	if resp, err := http.DefaultClient.Do(must(http.NewRequest(http.MethodPut, r.http, nil))); err != nil || resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %v, %+v", err, resp)
	}
	if code, _, _ := get(t, strings.TrimSuffix(r.http, WellKnown)+"/"); code != 404 {
		t.Errorf("the page where tracers are posted: %d", code)
	}
	if _, _, text := get(t, r.web+"/report.json"); !strings.Contains(text, `"tracers":2,"stale":0,"keys":2,`) {
		t.Errorf("of all that, in the report: %s", text)
	}
	page := until(t, r.web+"/", "203.0.113.5 udp port 80")
	if !strings.Contains(page, "said by new keys only") || !strings.Contains(page, "abuse@example.net") {
		t.Errorf("%.3000s", page)
	}
	if _, h, _ := get(t, r.web+"/"); h.Get("Content-Security-Policy") != policyOfContent || h.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", h)
	}
	if err := ChangePins(filepath.Join(dir, PinnedFile), other.Key, true, "a friend"); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = start(t, dir)
	if page := until(t, r.web+"/", "203.0.113.5 udp port 80"); !strings.Contains(page, "pinned") {
		t.Errorf("after the restart:\n%.3000s", page)
	}
	resp, err := http.Post(r.http, "application/json", bytes.NewReader(other.AppendLine(nil)))
	if err != nil || resp.StatusCode != 208 {
		t.Errorf("a replay after the restart: %v, %d", err, resp.StatusCode)
	}
	key := until(t, r.web+"/key/"+other.Key.String(), "pinned")
	if !strings.Contains(key, "Example Net") || !strings.Contains(key, "127.0.0.0/24") {
		t.Errorf("%s", key)
	}
	target := "?kind=to&target=203.0.113.5+udp+port+80"
	if _, _, mail := get(t, r.web+"/mail/"+other.Key.String()+target); !strings.Contains(mail, "your network carried about 3 Mpackets") {
		t.Errorf("mail: %s", mail)
	}
	if _, h, x := get(t, r.web+"/xarf/"+other.Key.String()+target); !strings.Contains(x, `"xarf_version"`) || !json.Valid([]byte(x)) || h.Get("Content-Type") != "application/json" {
		t.Errorf("XARF: %s", x)
	}
	if code, _, _ := get(t, r.web+"/key/"+strings.Repeat("0", 64)); code != 404 {
		t.Errorf("a key that nobody knows: %d", code)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// exposition holds the metrics to the text format of Prometheus, version 0.0.4: each
// family begins with its help and type, once, and no sample comes twice.
func exposition(t *testing.T, text string) {
	t.Helper()
	sample := regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[a-z0-9._]+"\})? [0-9]+$`)
	family, seen, kinds := "", map[string]bool{}, 0
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "# HELP "):
			family = words[2]
			if seen[family] || i+1 == len(lines) || !strings.HasPrefix(lines[i+1], "# TYPE "+family+" ") {
				t.Errorf("%s", line)
			}
			seen[family] = true
		case strings.HasPrefix(line, "# TYPE "):
			kinds++
			counter := strings.HasSuffix(family, "_total")
			if words[2] != family || (words[3] == "counter") != counter {
				t.Errorf("%s", line)
			}
		default:
			m := sample.FindStringSubmatch(line)
			if m == nil || m[1] != family || seen[m[1]+m[2]] && m[2] != "" {
				t.Errorf("%s", line)
				continue
			}
			seen[m[1]+m[2]] = true
		}
	}
	if kinds < 8 {
		t.Errorf("%d families", kinds)
	}
}

// TestTracersAreTakenByHTTPS, with a certificate.
func TestTracersAreTakenByHTTPS(t *testing.T) {
	like := httptest.NewTLSServer(nil) // for its certificate, of 127.0.0.1
	defer like.Close()
	output := &lines{make(chan string, 64)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{To: []netip.Prefix{netip.PrefixFrom(us, 32)}, HTTPS: []string{"127.0.0.1:0"}, Cert: like.TLS, State: t.TempDir(),
			Limits: store.Limits{Size: 1 << 20}, Keys: 1000, CPU: 1, Log: log.New(output, "", 0)})
	}()
	url := ""
	for url == "" {
		line := <-output.lines
		if words := strings.Fields(line); strings.HasPrefix(line, "taking tracers by HTTPS at") {
			url = "https://" + words[len(words)-1] + WellKnown
		}
	}
	s := signed(1, nil)
	resp, err := like.Client().Post(url, "application/octet-stream", bytes.NewReader(s.AppendDatagram(nil)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 204 || resp.TLS == nil {
		t.Errorf("%d", resp.StatusCode)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestThePageIsReadByAddressOnly: another's name that points to us is refused.
func TestThePageIsReadByAddressOnly(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "localhost:8080": true, "localhost": true, "192.0.2.1": true,
		"evil.example:80": false, "evil.example": false, "": false, "127.0.0.1.evil.example": false} {
		if addressed(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// sampleServer has an hour of an attack behind it, and hostile texts in it.
func sampleServer(t testing.TB) *Server {
	s := &Server{options: Options{To: []netip.Prefix{netip.PrefixFrom(us, 32)}, Version: "test", Log: log.New(io.Discard, "", 0), Email: "noc@example.com", Org: "Us"},
		recent: newRecent(), started: time.Now().Add(-3 * time.Hour)}
	ledger := receiver.NewLedger(1000)
	s.receiver = receiver.New(receiver.Options{Ledger: ledger, Mine: Mine(s.options.To)})
	now := time.Now()
	spoofed := []byte(`,"evidence":{"spoofed":"yes","method":"no route back","point":"lan"},"to":`)
	verdict := func(s tracer.Signed, key byte) tracer.Signed {
		return tracer.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{key}, ed25519.SeedSize)), bytes.Replace(s.Message, []byte(`,"to":`), spoofed, 1))
	}
	for _, carrier := range []struct {
		key     byte
		hops    int
		level   receiver.Level
		contact tracer.Contact
		every   time.Duration
		yes     bool
	}{
		{1, 14, receiver.Consistent, tracer.Contact{Email: "abuse@access.example", Identity: "Access Networks", ASN: 64501}, 3 * time.Minute, true},
		{2, 9, receiver.Corroborated, tracer.Contact{Email: "noc@transit.example", Identity: "Transit One", ASN: 64502, URL: "https://transit.example/abuse"}, 2 * time.Minute, false},
		{3, 3, receiver.Pinned, tracer.Contact{Email: "noc@upstream.example", Identity: "Our Upstream"}, time.Minute, false},
		{4, 11, receiver.NewKey, tracer.Contact{Email: "a\nb", Identity: "<script>document.title='owned'</script>\u202e<img src=x onerror=alert(1)>", URL: "javascript:alert(1)"}, 7 * time.Minute, false},
	} {
		for at := 50 * time.Minute; at > 0; at -= carrier.every {
			x := signed(carrier.key, func(m *tracer.Tracer) {
				m.Contact, m.Selected, m.Flow.Src[3] = carrier.contact, uint64(1+at/(10*time.Minute)), byte(at/time.Minute)
			})
			if carrier.yes {
				x = verdict(x, carrier.key)
			}
			s.recent.add(received(t, x, carrier.hops, carrier.level, now.Add(-at)))
			s.receiver.Do(func(l *receiver.Ledger) {
				m, _ := x.Open()
				for d := range int64(3) {
					if carrier.level != receiver.NewKey {
						l.Note(x.Key, m, netip.MustParseAddr("198.51.100.1"), carrier.hops, now.Add(-time.Duration(3-d)*24*time.Hour).UnixMilli())
					}
				}
			})
		}
	}
	x := verdict(signed(1, func(m *tracer.Tracer) {
		m.Flow.Src, m.Flow.Dst = m.Flow.Dst, m.Flow.Src
		m.Contact = tracer.Contact{Email: "abuse@access.example", Identity: "Access Networks"}
	}), 1)
	s.recent.add(received(t, x, 14, receiver.Consistent, now.Add(-time.Minute)))
	return s
}

// TestThePageInABrowser: it is drawn, its script runs, nothing of what strangers
// wrote does, and the browser complains of nothing.
func TestThePageInABrowser(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is missing")
		}
		t.Skip("chromium is missing")
	}
	s := sampleServer(t)
	asked := atomic.Int32{}
	page := s.page()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/live.json" && asked.Add(1) == 1 { // comes while the page is open
			s.recent.add(received(t, signed(3, func(m *tracer.Tracer) { m.Contact.Identity = "<b>late</b>" }), 3, receiver.Pinned, time.Now()))
		}
		page.ServeHTTP(w, r)
	}))
	defer web.Close()
	key := signed(1, nil).Key.String()
	keep := os.Getenv("OVERFLOWD_SCREENSHOTS") // a folder, to look at them
	for name, path := range map[string]string{"overview": "/", "key": "/key/" + key} {
		dir := t.TempDir()
		args := []string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + dir, "--window-size=1280,1700", "--hide-scrollbars",
			"--virtual-time-budget=9000", "--enable-logging=stderr", "--no-proxy-server", "--disable-background-networking", "--no-first-run"}
		run := func(what ...string) (string, string) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, browser, append(append(args, what...), web.URL+path)...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %.2000s", err, errs.String())
			}
			return out.String(), errs.String()
		}
		dom, said := run("--dump-dom")
		for line := range strings.Lines(said) {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("%s: the browser says %s", name, line)
			}
		}
		wants := []string{"<svg class=\"chart\"", "Access Networks", "consistent"}
		if name == "overview" {
			wants = append(wants, "<title>Tracers</title>", "<svg class=\"path\"", "Our Upstream", "3 hops", "14 hops", "This address is being spoofed", "&lt;b&gt;late&lt;/b&gt;",
				"&lt;script&gt;", "mailto:noc@upstream.example", "https://transit.example/abuse")
			if order := regexp.MustCompile(`(?s)class="path".*?14 hops.*?11 hops.*?9 hops.*?3 hops.*?you`); !order.MatchString(dom) {
				t.Errorf("the path is not in order")
			}
		}
		for _, want := range wants {
			if !strings.Contains(dom, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
		for _, bad := range []string{"<img", "javascript:", "\u202e", "<b>late", "owned'</script>\u202e"} {
			if strings.Contains(dom, bad) {
				t.Errorf("%s: %q is in the page", name, bad)
			}
		}
		if keep != "" {
			run("--screenshot=" + filepath.Join(keep, name+".png"))
		}
	}
	if asked.Load() == 0 {
		t.Error("the script did not ask for news")
	}
}

// TestTheReportAsAPage escapes as the page does.
func TestTheReportAsAPage(t *testing.T) {
	b, err := HTML(sampleServer(t).look().Report, "test")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"&lt;script&gt;", "Our Upstream", "In the name of 203.0.113.5", "color-scheme", "default-src 'none'"} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %q", want)
		}
	}
	for _, bad := range []string{"<script", "<img", "href=\"javascript:", "ZgotmplZ"} {
		if bytes.Contains(b, []byte(bad)) {
			t.Errorf("%q is in it", bad)
		}
	}
}

// TestNewKeysCannotHaveOthersForgottenHere, in memory.
func TestNewKeysCannotHaveOthersForgottenHere(t *testing.T) {
	r := newRecent()
	now := time.Now()
	r.add(received(t, signed(1, nil), 1, receiver.Consistent, now))
	x := received(t, signed(2, nil), 1, receiver.NewKey, now)
	for range 3 * maxRecentNew {
		r.add(x)
	}
	items, whole := r.since(now.Add(-time.Minute))
	if len(items) != maxRecentNew+1 || whole {
		t.Errorf("%d, %v", len(items), whole)
	}
	if _, whole := r.since(now.Add(time.Minute)); !whole {
		t.Error("nothing is missing of the future")
	}
}

func TestPins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pinned")
	a, b := signed(1, nil).Key, signed(2, nil).Key
	for _, x := range []struct {
		key    tracer.PublicKey
		pinned bool
		want   int
	}{{a, true, 1}, {a, true, 1}, {b, true, 2}, {a, false, 1}, {a, false, 1}} {
		if err := ChangePins(path, x.key, x.pinned, "note"); err != nil {
			t.Fatal(err)
		}
		if keys, err := ReadPins(path); err != nil || len(keys) != x.want || keys[x.key] != x.pinned {
			t.Errorf("%v, %v", keys, err)
		}
	}
	os.WriteFile(path, []byte("# a comment\n\nx\n"), 0o600)
	if _, err := ReadPins(path); err == nil || !strings.Contains(err.Error(), "pinned:3") {
		t.Errorf("%v", err)
	}
}
