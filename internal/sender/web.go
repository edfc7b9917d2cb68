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
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/lru"
	"github.com/overflowd/overflowd/internal/tracer"
)

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
	connections = 256            // of ours that are remembered, the last ones
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
	return w != nil && w.open(door{a, true}, now)
}

// An attempt is one delivery.
type attempt struct {
	to             netip.Addr
	line, datagram []byte
	mode           Sealing
	key            tracer.SealKey // zero: none is known
	doors          [2]bool        // HTTP, HTTPS: that may be tried

	tracer tracer.Tracer
	signed tracer.Signed
	only   bool // nothing else is sent
}

// UseWeb has tracers posted, besides what a Transport sends.
func (s *Sender) UseWeb(w *Web) { s.web = w }

// Posting tells whether attempts are on their way.
func (s *Sender) Posting() bool { return s != nil && s.web != nil && s.web.busy > 0 }

// Seal has tracers sealed, to the keys that are given, or that recipients tell.
func (s *Sender) Seal(mode Sealing, given []SealFor) { s.seals = newSeals(mode, given) }

// posting returns the attempt to post a tracer, nil if there is to be none: nobody is
// asked who is not on the Internet, or is one of us, whatever the flow and --private say.
func (s *Sender) posting(t *tracer.Tracer, signed *tracer.Signed, datagram []byte, udp bool, now time.Duration) *attempt {
	to := t.To
	if !s.web.ready(to, now) || !s.policy.Public(to) || udp && s.seals.reads(to, now) {
		return nil
	}
	a := &attempt{to: to, line: signed.AppendLine(nil), datagram: bytes.Clone(datagram), mode: s.seals.sealing(), key: s.seals.key(to, now),
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
	ok     bool
	sealed bool
	bytes  uint64         // that were sent, headers of IP and TCP included, as far as we know
	closed [2]bool        // doors that did not open
	key    tracer.SealKey // that the document named
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
	o := &outcome{}
	for _, secure := range []int{1, 0} {
		if o.ok || !a.doors[secure] {
			continue
		}
		if err := w.deliver(ctx, a, secure == 1, o); err != nil {
			o.closed[secure] = true
		} else {
			o.ok = true
		}
	}
	return o
}

// deliver posts a tracer at one door.
func (w *Web) deliver(ctx context.Context, a *attempt, secure bool, o *outcome) error {
	d := door{a.to, secure}
	if secure && a.mode != SealNever && a.key == (tracer.SealKey{}) {
		if err := w.document(ctx, d, a, o); err != nil {
			return err
		}
	}
	body, kind := a.line, "application/json"
	switch {
	case a.key != (tracer.SealKey{}) && a.mode != SealNever:
		sealed, err := tracer.Seal(nil, a.key, a.datagram)
		if err != nil {
			return err
		}
		body, kind, o.sealed = sealed, "application/octet-stream", true
	case a.mode == SealRequire:
		return errOpen
	}
	head := "POST " + wellKnown + " HTTP/1.1\r\nHost: " + w.host(d) + "\r\nUser-Agent: overflowd\r\nContent-Type: " + kind +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n"
	status, _, err := w.ask(ctx, d, append([]byte(head), body...), 0, o)
	if err == nil && (status < 200 || status > 299) {
		err = errStatus
	}
	return err
}

var (
	// errOpen: the tracer must be sealed, and there is no key.
	errOpen   = errors.New("no key to seal the tracer")
	errStatus = errors.New("not a status of success")
	errAnswer = errors.New("not an answer of HTTP/1")
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
	a.key, o.key = key, key
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
	o.bytes += controls * size
	raw, err := w.dial(ctx, netip.AddrPortFrom(d.addr, w.ports[d.secure]))
	if err != nil {
		return 0, nil, err
	}
	w.own.add(raw)
	c := &counted{Conn: raw, header: size, sum: &o.bytes}
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

// counted counts what a connection of ours sends. TCP tells nobody how many segments
// there were: that each read is of what one acknowledged is about right.
type counted struct {
	net.Conn
	sum    *uint64
	header uint64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	*c.sum += uint64(n) + uint64(1+n/1200)*c.header
	return n, err
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	*c.sum += c.header
	return n, err
}

// ours are the last connections of ours, whose packets make no tracers. It is safe
// for concurrent use.
type ours struct {
	mu   sync.Mutex
	last [connections]connection
	next int
}

type connection struct{ local, remote netip.AddrPort }

func (o *ours) add(c net.Conn) {
	local, err1 := netip.ParseAddrPort(c.LocalAddr().String())
	remote, err2 := netip.ParseAddrPort(c.RemoteAddr().String())
	if err1 != nil || err2 != nil {
		return
	}
	unmap := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last[o.next] = connection{unmap(local), unmap(remote)}
	o.next = (o.next + 1) % connections
}

const protoTCP = 6

// has tells whether a flow is of one of our connections.
func (w *Web) has(k *flow.Key) bool {
	if w == nil || k.Protocol != protoTCP {
		return false
	}
	src, dst := netip.AddrPortFrom(k.SrcAddr(), k.SrcPort), netip.AddrPortFrom(k.DstAddr(), k.DstPort)
	w.own.mu.Lock()
	defer w.own.mu.Unlock()
	for i := range w.own.last {
		if c := &w.own.last[i]; c.local == src && c.remote == dst || c.local == dst && c.remote == src {
			return true
		}
	}
	return false
}
