// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package sender

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

// posts tells whether this build posts and seals.
const posts = true

// wellKnown is where tracers are posted to (SPEC.md, section 8; RFC 8615).
const wellKnown = "/.well-known/overflowd"

// Bounds of one attempt.
const (
	connectTime = time.Second
	attemptTime = 3 * time.Second
	maxAttempts = 2              // at once
	maxHead     = 4 << 10        // bytes of an answer's head
	maxDocument = 4 << 10        // bytes of a recipient's document
	maxDoors    = 1024           // that are left alone, the last ones
	leftAlone   = 24 * time.Hour // a door that did not open
	connections = 1024           // of ours that are remembered, the last ones
	segment     = 20 + 32        // bytes of the headers of IPv4 and TCP with timestamps
	overTLS     = 8000           // bytes that an attempt sends at the most
	overTCP     = 2000           // likewise, besides the body
	moreOfIPv6  = 20             // bytes of a header
	controls    = 6              // segments of ours without data: SYN, ACK, FIN
)

var usualPorts = map[bool]uint16{false: 80, true: 443}

// A door is where an address may be asked.
type door struct {
	addr   netip.Addr
	secure bool
}

// Web posts tracers to the ends of flows themselves, by HTTPS and HTTP: one attempt
// each, without redirects, proxies, cookies or names to resolve. Whoever refuses, is not
// there, or answers other than 2xx, is left alone for a day. It belongs to the cold
// goroutine but for the attempts, of which there are two at once.
type Web struct {
	https, http bool
	config      tls.Config
	dial        func(context.Context, netip.AddrPort) (net.Conn, error)
	ports       map[bool]uint16 // of HTTPS, true, and HTTP: tests have others
	doors       *lru.Table[door]
	until       []time.Duration // by slot: until when a door is left alone
	busy        int
	done        chan func() // of maxAttempts: what the attempts came to; never closed
	own         ours
}

// NewWeb returns what posts by the one, the other or both. With anybody, certificates
// of HTTPS are not checked.
func NewWeb(https, http bool, anybody bool) *Web {
	w := &Web{https: https, http: http, ports: usualPorts, doors: lru.New[door](maxDoors), until: make([]time.Duration, maxDoors),
		done: make(chan func(), maxAttempts)}
	w.dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		d := net.Dialer{Timeout: connectTime, KeepAlive: -1}
		return d.DialContext(ctx, "tcp", to.String())
	}
	w.config = tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: anybody, // if asked for: the tracer's signature authenticates
		NextProtos:       []string{"http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}, // a greeting of one segment
	}
	return w
}

// Done hands out what is to be called when an attempt ended.
func (w *Web) Done() <-chan func() {
	if w == nil {
		return nil
	}
	return w.done
}

// wants tells whether there is a door of an address that is not left alone.
func (w *Web) wants(a netip.Addr, now time.Duration) bool {
	return w != nil && (w.open(door{a, true}, now) || w.open(door{a, false}, now))
}

// ready is the same, and whether an attempt can begin.
func (w *Web) ready(a netip.Addr, now time.Duration) bool {
	return w != nil && w.busy < maxAttempts && w.wants(a, now)
}

func (w *Web) open(d door, now time.Duration) bool {
	if d.secure && !w.https || !d.secure && !w.http {
		return false
	}
	slot, ok := w.doors.Find(d)
	return !ok || w.until[slot] <= now
}

// tells tells whether an address may be asked for its key.
func (w *Web) tells(a netip.Addr, now time.Duration) bool {
	return w != nil && w.open(door{a, true}, now) && !w.config.InsecureSkipVerify
}

// An attempt is one delivery.
type attempt struct {
	to             netip.Addr
	line, datagram []byte
	mode           Sealing
	key            tracer.SealKey // zero: none is known
	ask            bool           // for the recipient's document: nobody else told a key, or it is old
	doors          [2]bool        // HTTP, HTTPS: that may be tried

	tracer tracer.Tracer
	signed tracer.Signed
	only   bool // nothing else is sent
}

// byWeb tells whether an address may ever be asked: nobody is who is not on the Internet,
// or is one of us, whatever the flow and --private say.
func (s *Sender) byWeb(to netip.Addr) bool { return s.web != nil && s.policy.Public(to) }

// UseWeb has tracers posted, besides what a Transport sends.
func (s *Sender) UseWeb(w *Web) { s.web = w }

// Posting tells whether attempts are on their way.
func (s *Sender) Posting() bool { return s != nil && s.web != nil && s.web.busy > 0 }

// Seal has tracers sealed, to the keys that are given, or that recipients tell.
func (s *Sender) Seal(mode Sealing, given []SealFor) { s.seals = newSeals(mode, given) }

// posting returns the attempt to post a tracer, nil if there is to be none.
func (s *Sender) posting(t *tracer.Tracer, signed *tracer.Signed, datagram []byte, udp bool, now time.Duration) *attempt {
	to := t.To
	if !s.byWeb(to) || !s.web.ready(to, now) || udp && s.receipts.reads(to, now) {
		return nil
	}
	a := &attempt{to: to, line: signed.AppendLine(nil), datagram: bytes.Clone(datagram), mode: s.seals.sealing(), key: s.seals.key(to, now), ask: s.seals.asks(to, now),
		doors: [2]bool{s.web.open(door{to, false}, now), s.web.open(door{to, true}, now)}, tracer: *t, signed: *signed, only: !udp}
	a.signed.Message = bytes.Clone(signed.Message)
	return a
}

// post begins what posting returned.
func (s *Sender) post(a *attempt, now time.Duration) {
	if a == nil {
		return
	}
	reserved := a.cost()
	s.web.post(a, now, func(o *outcome) {
		s.Counters.SentBytes += o.bytes - reserved
		if o.key != (tracer.SealKey{}) {
			s.seals.document(a.to, o.key, time.Since(s.start))
		}
		if o.refused {
			s.seals.doubt(a.to)
		}
		if o.ok {
			s.Counters.Posted++
			if a.only {
				s.delivered(&a.tracer, &a.signed, o.sealed)
			}
			return
		}
		s.Counters.Unposted++
		if a.only {
			s.Counters.Failed++
		}
		s.forget(a.to)
	})
}

// forget drops what waits for an address, if there is no way any more.
func (s *Sender) forget(to netip.Addr) {
	lost := s.noWay(to, time.Since(s.start))
	for i := len(s.pending.notices) - 1; i >= 0 && lost != nil; i-- {
		if s.pending.notices[i].to == to {
			s.pending.remove(i)
			*lost++
		}
	}
}

// An outcome is what an attempt came to.
type outcome struct {
	ok      bool
	sealed  bool
	refused bool           // a sealed one, by a status of 4xx
	bytes   uint64         // that were sent, headers of IP and TCP included, as far as we know
	most    uint64         // that may be
	closed  [2]bool        // doors that did not open
	key     tracer.SealKey // that the document named
}

// cost returns the bytes that an attempt sends at the most.
func (a *attempt) cost() (n uint64) {
	if a == nil {
		return 0
	}
	body := uint64(len(a.line) + len(a.line)/1000*segment)
	if a.doors[1] {
		n += overTLS + body
	}
	if a.doors[0] {
		n += overTCP + body
	}
	return n
}

// post begins an attempt. What it came to is told by way of Done.
func (w *Web) post(a *attempt, now time.Duration, then func(*outcome)) {
	w.busy++
	go func() {
		o := w.try(a)
		w.done <- func() {
			w.busy--
			for i, closed := range o.closed {
				if closed {
					slot, _ := w.doors.Put(door{a.to, i == 1})
					w.until[slot] = now + leftAlone
				}
			}
			then(o)
		}
	}()
}

// try tries HTTPS and then HTTP.
func (w *Web) try(a *attempt) *outcome {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTime)
	defer cancel()
	o := &outcome{most: a.cost()}
	end, _ := ctx.Deadline()
	for _, secure := range []int{1, 0} {
		if o.ok || !a.doors[secure] || !time.Now().Before(end) {
			continue
		}
		err := w.deliver(ctx, a, secure == 1, o)
		o.ok = err == nil
		// What went wrong here says nothing of the host.
		o.closed[secure] = err != nil && !errors.As(err, new(localError))
	}
	return o
}

// A localError is one of ours, as without a route or a free port: the host was not asked.
type localError struct{ error }

// dialed sorts an error of a connection that did not come about.
func dialed(err error) error {
	var timeout net.Error
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return localError{err}
}

// deliver posts a tracer at one door.
func (w *Web) deliver(ctx context.Context, a *attempt, secure bool, o *outcome) error {
	d := door{a.to, secure}
	if secure && a.ask && !w.config.InsecureSkipVerify { // or who is in between could tell a key of his own
		if err := w.document(ctx, d, a, o); err != nil {
			return err
		}
	}
	body, kind := a.line, "application/json"
	switch {
	case a.key != (tracer.SealKey{}) && a.mode != SealNever:
		sealed, err := tracer.Seal(nil, a.key, a.datagram)
		if err != nil {
			return localError{err}
		}
		body, kind, o.sealed = sealed, "application/octet-stream", true
	case a.mode == SealRequire && secure:
		return errOpen
	case a.mode == SealRequire:
		return localError{errOpen}
	}
	head := "POST " + wellKnown + " HTTP/1.1\r\nHost: " + w.host(d) + "\r\nUser-Agent: overflowd\r\nContent-Type: " + kind +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n"
	status, _, err := w.ask(ctx, d, append([]byte(head), body...), 0, o)
	if err == nil && (status < 200 || status > 299) {
		err = errStatus
		o.refused = o.sealed && status >= 400 && status <= 499
	}
	return err
}

var (
	// errOpen: the tracer must be sealed, and there is no key.
	errOpen   = errors.New("no key to seal the tracer")
	errStatus = errors.New("not a status of success")
	errAnswer = errors.New("not an answer of HTTP/1")
	errCost   = errors.New("it costs more than an attempt may")
)

// document asks for a recipient's key. That there is none is no error, but for a host
// that has never heard of us.
func (w *Web) document(ctx context.Context, d door, a *attempt, o *outcome) error {
	// As HTTP/1.0, so that the answer comes in one piece.
	request := "GET " + wellKnown + " HTTP/1.0\r\nHost: " + w.host(d) + "\r\nUser-Agent: overflowd\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
	status, text, err := w.ask(ctx, d, []byte(request), maxDocument, o)
	switch {
	case err != nil:
		return err
	case status == 405: // takes tracers, and tells nothing
		return nil
	case status != 200:
		return errStatus
	}
	key, err := tracer.ReadDocument(text)
	if key != (tracer.SealKey{}) {
		a.key, o.key = key, key
	}
	return err
}

// host is what stands in Host (RFC 9110, section 7.2).
func (w *Web) host(d door) string {
	host := d.addr.String()
	if d.addr.Is6() {
		host = "[" + host + "]"
	}
	if port := w.ports[d.secure]; port != usualPorts[d.secure] {
		host += ":" + strconv.Itoa(int(port))
	}
	return host
}

// ask sends one request over a connection of its own, and returns the status and as
// much of the content as is asked for. net/http would do more, and take 1.5 MB of the
// flash: this is all of HTTP/1 (RFC 9112) that one answer of interest needs.
func (w *Web) ask(ctx context.Context, d door, request []byte, most int, o *outcome) (status int, content []byte, err error) {
	size := uint64(segment)
	if d.addr.Is6() {
		size += moreOfIPv6
	}
	if o.bytes+controls*size > o.most {
		return 0, nil, errCost
	}
	o.bytes += controls * size
	to := netip.AddrPortFrom(d.addr, w.ports[d.secure])
	at := w.own.begin(to)
	raw, err := w.dial(ctx, to)
	if err != nil {
		return 0, nil, dialed(err)
	}
	w.own.connected(at, raw)
	c := &counted{Conn: raw, header: size, o: o}
	var conn net.Conn = c
	defer func() { conn.Close() }()
	end, _ := ctx.Deadline()
	c.SetDeadline(end)
	if d.secure {
		config := w.config.Clone()
		config.ServerName = d.addr.String()
		t := tls.Client(c, config)
		if err := t.HandshakeContext(ctx); err != nil {
			return 0, nil, err
		}
		conn = t
	}
	if _, err := conn.Write(request); err != nil {
		return 0, nil, err
	}
	left := maxHead + int64(most)
	r := bufio.NewReaderSize(io.LimitReader(conn, left), 512)
	for status < 200 { // 103 and the like come before the answer
		if status, err = head(r); err != nil {
			return 0, nil, err
		}
	}
	if most > 0 {
		content, err = io.ReadAll(r)
	}
	return status, content, err
}

// head reads the head of an answer, which is over when its lines are: of them only
// the status is of interest.
func head(r *bufio.Reader) (status int, err error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	// HTTP-version SP status-code SP [ reason-phrase ] (section 4)
	if len(line) < 12 || line[:7] != "HTTP/1." || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, errAnswer
	}
	if status, err = strconv.Atoi(line[9:12]); err != nil || status < 100 {
		return 0, errAnswer
	}
	for line != "" {
		if line, err = readLine(r); err != nil {
			return 0, err
		}
	}
	return status, nil
}

// readLine returns a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", errAnswer
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// counted counts what a connection of ours sends, and ends what would cost more than
// was set aside. TCP tells nobody how many segments there were: that each read is of what
// one acknowledged is about right.
type counted struct {
	net.Conn
	o      *outcome
	header uint64
}

func (c *counted) spend(n uint64) error {
	if c.o.bytes+n > c.o.most {
		return errCost
	}
	c.o.bytes += n
	return nil
}

func (c *counted) Write(b []byte) (int, error) {
	if err := c.spend(uint64(len(b)) + uint64(1+len(b)/1200)*c.header); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *counted) Read(b []byte) (int, error) {
	if err := c.spend(c.header); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// ours are the last connections of ours, whose packets make no tracers. It is safe
// for concurrent use.
type ours struct {
	mu   sync.Mutex
	last [connections]connection
	next int
}

// A connection of which the local port is 0 is one that is to come about, or did not: all
// that passes between one of our addresses and there is taken for it.
type connection struct{ local, remote netip.AddrPort }

// begin remembers a connection, and returns its place.
func (o *ours) begin(to netip.AddrPort) (at int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at = o.next
	o.last[at] = connection{remote: to}
	o.next = (o.next + 1) % connections
	return at
}

// connected completes the connection at a place.
func (o *ours) connected(at int, c net.Conn) {
	local, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last[at].local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
}

const protoTCP = 6

// has tells whether a flow is of one of our connections; mine tells whether an address
// is ours.
func (w *Web) has(k *flow.Key, mine func(netip.Addr) bool) bool {
	if w == nil || k.Protocol != protoTCP {
		return false
	}
	src, dst := netip.AddrPortFrom(k.SrcAddr(), k.SrcPort), netip.AddrPortFrom(k.DstAddr(), k.DstPort)
	w.own.mu.Lock()
	defer w.own.mu.Unlock()
	for i := range w.own.last {
		c := &w.own.last[i]
		here := dst
		if c.remote == dst {
			here = src
		} else if c.remote != src {
			continue
		}
		if c.local == here || c.local.Port() == 0 && mine(here.Addr()) {
			return true
		}
	}
	return false
}
