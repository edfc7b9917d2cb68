// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/tracer"
)

// stranger is a host that is asked: what it does with a connection.
type stranger func(c net.Conn)

// said returns a stranger that reads a request, hands it to see, and answers.
func said(answer string, see func(*http.Request, []byte)) stranger {
	return func(c net.Conn) {
		defer c.Close()
		request, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		if see != nil {
			see(request, body)
		}
		io.WriteString(c, answer)
	}
}

// hosts makes connections to strangers, by address and port: nobody else is there.
func (w *Web) hosts(all map[string]stranger) *atomic.Int32 {
	n := new(atomic.Int32)
	w.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		n.Add(1)
		s := all[to.String()]
		if s == nil {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		here, there := net.Pipe()
		go s(there)
		return here, nil
	}
	return n
}

const (
	web4 = "91.200.16.2"
	ok   = "HTTP/1.1 204 No Content\r\n\r\n"
)

func testAttempt(to string, http, https bool) *attempt {
	t := tracer.Tracer{Flow: *record("45.83.0.2", to), To: netip.MustParseAddr(to), Rate: 1e-4, Selected: 1, Time: 1e12}
	s := tracer.Sign(recipient, t.AppendMessage(nil))
	return &attempt{to: t.To, line: s.AppendLine(nil), datagram: s.AppendDatagram(nil), doors: [2]bool{http, https}}
}

// TestWhatStrangersAnswer costs nothing but the one attempt.
func TestWhatStrangersAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		stranger stranger
		ok       bool
		within   time.Duration
	}{
		"taken":                   {said(ok, nil), true, 0},
		"taken, with words":       {said("HTTP/1.0 200 OK\nServer: x\n\nthank you", nil), true, 0},
		"taken, after early news": {said("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 202 \r\n\r\n", nil), true, 0},
		"it was there before":     {said("HTTP/1.1 208 Already Reported\r\n\r\n", nil), true, 0},
		"nobody of that name":     {said("HTTP/1.1 404 Not Found\r\n\r\n", nil), false, 0},
		"another place":           {said("HTTP/1.1 301 Moved\r\nLocation: http://198.51.100.1/\r\n\r\n", nil), false, 0},
		"a proxy's word":          {said("HTTP/1.1 407 Proxy\r\n\r\n", nil), false, 0},
		"not HTTP":                {said("SSH-2.0-OpenSSH_9.2p1\r\n", nil), false, 0},
		"HTTP/2":                  {said("HTTP/2 200\r\n\r\n", nil), false, 0},
		"a status of two digits":  {said("HTTP/1.1 20\r\n\r\n", nil), false, 0},
		"a negative status":       {said("HTTP/1.1 -20\r\n\r\n", nil), false, 0},
		"a head without an end":   {said("HTTP/1.1 204 No Content\r\nA: b\r\n", nil), false, 0},
		"early news for ever":     {said(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10000), nil), false, 0},
		"a head of megabytes":     {said("HTTP/1.1 204 No Content\r\nA: "+strings.Repeat("b", 1<<20), nil), false, 0},
		"nothing":                 {func(c net.Conn) { c.Close() }, false, 0},
		"a tarpit":                {func(c net.Conn) { io.Copy(io.Discard, c) }, false, attemptTime},
		"a tarpit of answers": {func(c net.Conn) {
			for _, b := range []byte(strings.Repeat("HTTP/1.1 204", 99)) {
				time.Sleep(time.Second)
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
			}
		}, false, attemptTime},
		"nobody reads": {func(c net.Conn) { time.Sleep(2 * attemptTime) }, false, attemptTime},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				w := NewWeb(true, true, false)
				n := w.hosts(map[string]stranger{web4 + ":80": c.stranger})
				start := time.Now()
				o := w.try(testAttempt(web4, true, false))
				if o.ok != c.ok || o.closed[0] == c.ok || n.Load() != 1 || time.Since(start) != c.within {
					t.Errorf("%+v after %v and %d connections", o, time.Since(start), n.Load())
				}
				if most := testAttempt(web4, true, false).cost(); o.bytes == 0 || o.bytes > most {
					t.Errorf("%d bytes, want at most %d", o.bytes, most)
				}
				time.Sleep(2 * attemptTime) // until the stranger has gone
			})
		})
	}
}

// TestWhoDribblesEndsTheAttempt before it costs more than was set aside, also within TLS.
func TestWhoDribblesEndsTheAttempt(t *testing.T) {
	dribble := func(c net.Conn) {
		defer c.Close()
		go io.Copy(io.Discard, c)
		for _, b := range []byte("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 3000) + "\r\n\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
	}
	inTime(t, func(t *testing.T) {
		for _, secure := range []bool{false, true} {
			w := NewWeb(true, true, true)
			w.hosts(map[string]stranger{web4 + ":80": dribble, web4 + ":443": dribble})
			a := testAttempt(web4, !secure, secure)
			o := w.try(a)
			if i := map[bool]int{false: 0, true: 1}[secure]; o.ok || !o.closed[i] || o.bytes > a.cost() {
				t.Errorf("%v: %+v, want at most %d bytes", secure, o, a.cost())
			}
		}
	})
}

// TestWhatGoesWrongHereClosesNoDoor: without a route, a free port or time, nobody was
// asked.
func TestWhatGoesWrongHereClosesNoDoor(t *testing.T) {
	inTime(t, func(t *testing.T) {
		for _, err := range []error{syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EMFILE, syscall.EPERM} {
			w := NewWeb(true, true, false)
			w.dial = func(context.Context, netip.AddrPort) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: err}
			}
			if o := w.try(testAttempt(web4, true, true)); o.ok || o.closed != [2]bool{} {
				t.Errorf("%v: %+v", err, o)
			}
		}
		w := NewWeb(true, true, false)
		n := w.hosts(map[string]stranger{web4 + ":443": func(c net.Conn) { io.Copy(io.Discard, c) }, web4 + ":80": said(ok, nil)})
		if o := w.try(testAttempt(web4, true, true)); o.ok || o.closed != [2]bool{false, true} || n.Load() != 1 {
			t.Errorf("after a tarpit there was no time: %+v, %d connections", o, n.Load())
		}
	})
}

// endless counts what is read of it.
type endless struct{ n atomic.Int64 }

func (e *endless) serve(c net.Conn) {
	defer c.Close()
	if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
		return
	}
	io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
	block := make([]byte, 64<<10)
	for {
		n, err := c.Write(block)
		e.n.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func TestAnAnswerOfGigabytesIsNotRead(t *testing.T) {
	inTime(t, func(t *testing.T) {
		w, e := NewWeb(true, true, false), &endless{}
		w.hosts(map[string]stranger{web4 + ":80": e.serve})
		if o := w.try(testAttempt(web4, true, false)); !o.ok {
			t.Errorf("%+v", o)
		}
		synctest.Wait()
		if e.n.Load() > 4096 {
			t.Errorf("%d bytes were read", e.n.Load())
		}
	})
}

// TestTheRequest is what RFC 9110 wants, and its content a tracer that verifies.
func TestTheRequest(t *testing.T) {
	for to, host := range map[string]string{web4: web4, "2001:db8::5": "[2001:db8::5]"} {
		inTime(t, func(t *testing.T) {
			w := NewWeb(false, true, false)
			seen := false
			w.hosts(map[string]stranger{netip.AddrPortFrom(netip.MustParseAddr(to), 80).String(): said(ok, func(r *http.Request, body []byte) {
				seen = true
				if r.Method != "POST" || r.RequestURI != "/.well-known/overflowd" || r.Proto != "HTTP/1.1" || r.Host != host || !r.Close ||
					r.Header.Get("Content-Type") != "application/json" || r.ContentLength != int64(len(body)) {
					t.Errorf("%+v", r)
				}
				for name := range r.Header {
					if name != "Content-Type" && name != "Content-Length" && name != "User-Agent" && name != "Connection" {
						t.Errorf("it has %s", name)
					}
				}
				s, err := tracer.ParseLine(body)
				if err == nil {
					err = s.Verify()
				}
				if err != nil {
					t.Errorf("%v: %s", err, body)
				}
			})})
			if o := w.try(testAttempt(to, true, false)); !o.ok || !seen {
				t.Errorf("%+v", o)
			}
		})
	}
}

// certified returns a certificate of an address, and who signed it.
func certified(t *testing.T, addr string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(addr)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

func overTLSOf(certificate tls.Certificate, s stranger) stranger {
	return func(c net.Conn) { s(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})) }
}

// TestCertificates must be of the very address, unless anybody will do.
func TestCertificates(t *testing.T) {
	inTime(t, func(t *testing.T) {
		mine, trusted := certified(t, web4)
		other, alsoTrusted := certified(t, "91.200.16.3")
		for name, c := range map[string]struct {
			certificate tls.Certificate
			roots       *x509.CertPool
			anybody, ok bool
		}{
			"of the address":               {mine, trusted, false, true},
			"of nobody who is trusted":     {mine, x509.NewCertPool(), false, false},
			"of another address":           {other, alsoTrusted, false, false},
			"of another address, any will": {other, x509.NewCertPool(), true, true},
		} {
			w := NewWeb(true, false, c.anybody)
			w.config.RootCAs = c.roots
			w.hosts(map[string]stranger{web4 + ":443": overTLSOf(c.certificate, said(ok, nil))})
			o := w.try(testAttempt(web4, false, true))
			if o.ok != c.ok {
				t.Errorf("%s: %+v", name, o)
			}
			if most := testAttempt(web4, false, true).cost(); o.bytes > most {
				t.Errorf("%s: %d bytes, want at most %d", name, o.bytes, most)
			}
		}
	})
}

// TestHTTPSComesFirst and HTTP only if that was to no avail.
func TestHTTPSComesFirst(t *testing.T) {
	inTime(t, func(t *testing.T) {
		certificate, _ := certified(t, web4)
		w := NewWeb(true, true, true)
		var order []string
		see := func(name string) func(*http.Request, []byte) {
			return func(*http.Request, []byte) { order = append(order, name) }
		}
		hosts := map[string]stranger{web4 + ":443": overTLSOf(certificate, said(ok, see("https"))), web4 + ":80": said(ok, see("http"))}
		w.hosts(hosts)
		if o := w.try(testAttempt(web4, true, true)); !o.ok || o.closed != [2]bool{} || len(order) != 1 || order[0] != "https" {
			t.Errorf("%+v %v", o, order)
		}
		delete(hosts, web4+":443")
		if o := w.try(testAttempt(web4, true, true)); !o.ok || o.closed != [2]bool{false, true} || len(order) != 2 || order[1] != "http" {
			t.Errorf("%+v %v", o, order)
		}
	})
}

func opener(t *testing.T) tracer.Openers {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return tracer.Openers{key}
}

// TestTheDocumentOfARecipient: of what it says depends whether the tracer is sealed,
// sent as it is, or not at all.
func TestTheDocumentOfARecipient(t *testing.T) {
	inTime(t, func(t *testing.T) {
		keys := opener(t)
		certificate, trusted := certified(t, web4)
		document := func(status, text string) string {
			return "HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\n\r\n" + text
		}
		for name, c := range map[string]struct {
			document string
			mode     Sealing
			want     string // "" if nothing is to be posted
		}{
			"a key":                        {document("200 OK", `{"overflowd":1,"seal":"`+keys.Key().String()+`"}`), SealPrefer, "sealed"},
			"a key that must be":           {document("200 OK", `{"overflowd":1,"seal":"`+keys.Key().String()+`"}`), SealRequire, "sealed"},
			"a key that nobody wants":      {document("200 OK", `{"overflowd":1,"seal":"`+keys.Key().String()+`"}`), SealNever, "open"},
			"no key":                       {document("200 OK", `{"overflowd":1}`), SealPrefer, "open"},
			"no key that must be":          {document("200 OK", `{"overflowd":1}`), SealRequire, ""},
			"no document":                  {document("405 Method Not Allowed", ""), SealPrefer, "open"},
			"no document, which must be":   {document("405 Method Not Allowed", ""), SealRequire, ""},
			"never heard of it":            {document("404 Not Found", ""), SealPrefer, ""},
			"elsewhere":                    {document("302 Found", ""), SealPrefer, ""},
			"a page":                       {document("200 OK", "<html>"), SealPrefer, ""},
			"of another version":           {document("200 OK", `{"overflowd":2,"seal":"`+keys.Key().String()+`"}`), SealPrefer, ""},
			"a short key":                  {document("200 OK", `{"overflowd":1,"seal":"00"}`), SealPrefer, ""},
			"a key that is none":           {document("200 OK", `{"overflowd":1,"seal":"`+strings.Repeat("0", 64)+`"}`), SealPrefer, ""},
			"a document that does not end": {document("200 OK", `{"overflowd":1,"x":"`+strings.Repeat("y", 1<<20)), SealPrefer, ""},
		} {
			w := NewWeb(true, false, false)
			w.config.RootCAs = trusted
			got := ""
			w.hosts(map[string]stranger{web4 + ":443": overTLSOf(certificate, func(conn net.Conn) {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				if r.Method == "GET" {
					io.WriteString(conn, c.document)
					return
				}
				body, err := io.ReadAll(r.Body)
				if inner, e := keys.Open(body); e == nil && r.Header.Get("Content-Type") == "application/octet-stream" {
					got, body = "sealed", inner
				} else if tracer.IsDatagram(body) || bytes.HasPrefix(body, []byte("{")) {
					got = "open"
				}
				if err != nil || !bytes.Contains(body, []byte(web4)) {
					t.Errorf("%s: %v %q", name, err, body)
				}
				io.WriteString(conn, ok)
			})})
			a := testAttempt(web4, false, true)
			a.mode, a.ask = c.mode, c.mode != SealNever
			if o := w.try(a); got != c.want || o.ok != (c.want != "") || o.sealed != (c.want == "sealed") || o.bytes > a.cost() {
				t.Errorf("%s: %q, want %q: %+v", name, got, c.want, o)
			}
		}
	})
}

// TestADocumentOfAnybodyIsNotBelieved: without a certificate that was checked, who is in
// between would tell a key of his own.
func TestADocumentOfAnybodyIsNotBelieved(t *testing.T) {
	inTime(t, func(t *testing.T) {
		certificate, _ := certified(t, web4)
		w := NewWeb(true, false, true)
		var methods []string
		w.hosts(map[string]stranger{web4 + ":443": overTLSOf(certificate, said(ok, func(r *http.Request, _ []byte) { methods = append(methods, r.Method) }))})
		a := testAttempt(web4, false, true)
		a.mode, a.ask = SealPrefer, true
		if o := w.try(a); !o.ok || o.sealed || len(methods) != 1 || methods[0] != "POST" {
			t.Errorf("%+v, %v", o, methods)
		}
	})
}

// newPosting is a wire that posts by HTTP, and perhaps sends datagrams, too.
func newPosting(t testing.TB, udp bool, hosts map[string]stranger, private ...netip.Prefix) (*wire, *atomic.Int32) {
	w := newAnswered(t, private...)
	if !udp {
		w.transport = nil
	}
	w.observed = 1 << 40
	web := NewWeb(false, true, false)
	n := web.hosts(hosts)
	w.UseWeb(web)
	return w, n
}

// settle has all attempts end.
func (w *wire) settle() {
	for w.Posting() {
		(<-w.web.Done())()
	}
}

// TestWhoDoesNotTakeItIsLeftAloneForADay, and costs no more than was sent.
func TestWhoDoesNotTakeItIsLeftAloneForADay(t *testing.T) {
	inTime(t, func(t *testing.T) {
		taken := 0
		w, asked := newPosting(t, false, map[string]stranger{web4 + ":80": said(ok, func(*http.Request, []byte) { taken++ })})
		const other = "45.83.0.2" // where nobody is
		tell := func() {
			w.offer(record(other, web4), 1)
			for range 2 { // two at once at the most, and one to an address in three seconds
				w.Drain()
				w.settle()
				time.Sleep(4 * time.Second)
			}
		}
		tell()
		if taken != 1 || asked.Load() != 2 || w.Counters.Sent != 1 || w.Counters.Posted != 1 || w.Counters.Unposted != 1 || w.Counters.Failed != 1 || w.Waiting() != 0 {
			t.Fatalf("%d taken, %d asked, %+v", taken, asked.Load(), w.Counters)
		}
		if w.Counters.SentBytes < 500 || w.Counters.SentBytes > 6000 {
			t.Errorf("%d bytes", w.Counters.SentBytes)
		}
		for range 5 {
			tell()
		}
		if asked.Load() != 7 || taken != 6 || w.Counters.LeftAlone != 5 {
			t.Errorf("%d asked, %d taken, %+v", asked.Load(), taken, w.Counters)
		}
		time.Sleep(leftAlone)
		tell()
		if asked.Load() != 9 {
			t.Errorf("after a day: %d asked", asked.Load())
		}
	})
}

// TestTwoAttemptsAtOnce at the most, whatever is to be told; and what is observed pays
// for all they may cost before they begin.
func TestTwoAttemptsAtOnce(t *testing.T) {
	inTime(t, func(t *testing.T) {
		tarpits := map[string]stranger{}
		for i := range 9 {
			tarpits["91.200."+string(rune('1'+i))+".2:80"] = func(c net.Conn) { io.Copy(io.Discard, c) }
		}
		w, asked := newPosting(t, false, tarpits)
		for to := range tarpits {
			w.offer(record("45.83.0.2", strings.TrimSuffix(to, ":80")), 1)
		}
		w.Drain()
		synctest.Wait()
		if asked.Load() != 2 || w.web.busy != 2 {
			t.Errorf("%d asked at once", asked.Load())
		}
		if w.Counters.SentBytes < 2*overTCP {
			t.Errorf("%d bytes are reserved", w.Counters.SentBytes)
		}
		w.settle()
		w.observed = 100 * (w.Counters.SentBytes + overTCP)
		w.Drain()
		if w.Posting() {
			t.Error("an attempt that was not paid for")
		}
		w.observed += 100 * overTCP
		w.Drain()
		if !w.Posting() {
			t.Error("no attempt, though it was paid for")
		}
		w.settle()
	})
}

// TestWhoIsNeverAsked: our own, private and management addresses, whatever the flow and
// the owner's --private say; and our own connections make no tracers.
func TestWhoIsNeverAsked(t *testing.T) {
	inTime(t, func(t *testing.T) {
		all := map[string]stranger{}
		for _, a := range []string{"10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "127.0.0.1", "45.83.0.77", "45.83.9.1", "[64:ff9b::a00:1]", "[fd00::1]", "[fe80::1]"} {
			all[a+":80"] = said(ok, nil)
		}
		w, asked := newPosting(t, false, all, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.168.0.0/16"))
		w.policy.SetOwn([]netip.Prefix{netip.MustParsePrefix("45.83.0.77/24")})
		w.policy.SetNever([]netip.Prefix{netip.MustParsePrefix("45.83.9.0/24")})
		for to := range all {
			to = strings.Trim(strings.TrimSuffix(to, ":80"), "[]")
			from := "91.200.16.2"
			if strings.Contains(to, ":") {
				from = "2a01:4f8::1"
			}
			w.offer(record(from, to), 1)
			w.Drain()
		}
		for w.Waiting() > 0 && w.Posting() {
			w.settle()
			w.Drain()
		}
		w.settle()
		if w.Counters.Posted != 0 || asked.Load() > 2 {
			t.Errorf("%+v, %d asked", w.Counters, asked.Load())
		}
	})
	inTime(t, func(t *testing.T) { // whom nobody asks is counted
		w, asked := newPosting(t, false, nil, netip.MustParsePrefix("10.0.0.0/8"))
		w.offer(record("10.0.0.2", "10.0.0.1"), 1)
		if w.Drain(); w.Counters.Refused[policy.Unreachable] != 2 || asked.Load() != 0 || w.signed != 0 {
			t.Errorf("%+v", w.Counters)
		}
	})
	w, _ := newPosting(t, true, nil)
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.web.own.connected(w.web.own.begin(c.RemoteAddr().(*net.TCPAddr).AddrPort()), c)
	w.policy.SetOwn([]netip.Prefix{netip.MustParsePrefix("45.83.0.77/24")})
	w.web.own.begin(netip.MustParseAddrPort("91.200.16.2:443")) // of which nobody knows the port yet
	mine, there, other := netip.MustParseAddrPort("45.83.0.77:40000"), netip.MustParseAddrPort("91.200.16.2:443"), netip.MustParseAddrPort("45.83.0.78:40000")
	local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
	for name, x := range map[string]struct {
		src, dst netip.AddrPort
		protocol uint8
		ours     bool
	}{
		"begun":          {mine, there, 6, true},
		"begun, back":    {there, mine, 6, true},
		"of another":     {other, there, 6, false},
		"out":            {local, remote, 6, true},
		"back":           {remote, local, 6, true},
		"of UDP":         {local, remote, 17, false},
		"another's port": {netip.AddrPortFrom(local.Addr(), local.Port()^1), remote, 6, false},
	} {
		k := flow.Key{SrcPort: x.src.Port(), DstPort: x.dst.Port(), Protocol: x.protocol, Family: flow.IPv4}
		copy(k.Src[:], x.src.Addr().AsSlice())
		copy(k.Dst[:], x.dst.Addr().AsSlice())
		if w.web.has(&k, w.policy.Mine) != x.ours {
			t.Errorf("%s: %v", name, !x.ours)
		}
	}
	k := flow.Record{Key: flow.Key{SrcPort: local.Port(), DstPort: remote.Port(), Protocol: 6, Family: flow.IPv4}}
	copy(k.Src[:], local.Addr().AsSlice())
	copy(k.Dst[:], remote.Addr().AsSlice())
	w.offer(&k, 1)
	if w.Counters.Refused[policy.Tracer] != 2 {
		t.Errorf("%+v", w.Counters)
	}
}

// TestADatagramAndAPost go together, until a receipt shows that datagrams are read.
func TestADatagramAndAPost(t *testing.T) {
	inTime(t, func(t *testing.T) {
		posted := 0
		w, _ := newPosting(t, true, map[string]stranger{web4 + ":80": said(ok, func(*http.Request, []byte) { posted++ })})
		w.Seal(SealPrefer, nil)
		tell := func() {
			w.offer(record("91.200.16.3", web4), 1)
			w.Drain()
			w.settle()
			time.Sleep(4 * time.Second)
		}
		tell()
		if len(w.sent) != 2 || posted != 1 || w.Counters.Sent != 2 || w.Counters.Posted != 1 {
			t.Fatalf("%d sent, %d posted, %+v", len(w.sent), posted, w.Counters)
		}
		n := 0
		if w.sent[1].to.String() == web4 {
			n = 1
		}
		w.Answer(w.receipt(n, tracer.Received, nil), w.sent[n].to)
		tell()
		if posted != 1 || len(w.sent) != 4 {
			t.Errorf("%d posted, %d sent", posted, len(w.sent))
		}
		// A budget that is enough for the datagram only sends it.
		time.Sleep(2 * reads)
		w.observed = 100 * (w.Counters.SentBytes + 1500)
		tell()
		if posted != 1 || len(w.sent) < 5 {
			t.Errorf("%d posted, %d sent with little to spend", posted, len(w.sent))
		}
	})
}
