// SPDX-License-Identifier: BSD-3-Clause

// Package server is the receiving program of a server: it takes tracers by UDP and
// HTTP, keeps those that are verified, and shows them.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/net/netutil"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/store"
)

// Options of a Server.
type Options struct {
	To       []netip.Prefix   // our addresses
	Listen   []netip.AddrPort // UDP
	HTTP     []string         // addresses of the well-known path, "" for none
	HTTPS    []string         // likewise
	Cert     *tls.Config      // of HTTPS
	Web      string           // address of the page, "" for none
	State    string           // folder
	Limits   store.Limits
	Keys     int     // in the ledger, with standing and without
	CPU      float64 // of one processor, for signatures
	Version  string
	Org      string // who complains in XARF reports
	Email    string
	Log      *log.Logger
	Receipts bool           // answer tracers
	Stop     []netip.Prefix // of our addresses, that want no more tracers
	More     []netip.Prefix // of our addresses, that want more of them
}

// The names of files in the state's folder.
const (
	LedgerFile = "ledger.db"
	PinnedFile = "pinned"
)

const (
	ledgerEvery = 5 * time.Minute
	syncEvery   = 10 * time.Second
	maxPosters  = 256 // connections that post
	maxReaders  = 32  // connections to the page
)

// A Server is the program's state.
type Server struct {
	options  Options
	receiver *receiver.Receiver
	recent   *recent
	failures atomic.Uint64
	started  time.Time
	sockets  []*receiver.Socket
	answerer *answerer // nil: nobody is answered
	seal     receiver.SealKeys

	mu    sync.Mutex // guards the store
	store *store.Store
	said  time.Time // when a failure of the store was last logged
}

// Mine tells whether an address is in the prefixes.
func Mine(to []netip.Prefix) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		for _, p := range to {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
}

// Run serves until ctx is done.
func Run(ctx context.Context, o Options) (err error) {
	s := &Server{options: o, recent: newRecent(), started: time.Now(), seal: receiver.SealKeys{Dir: o.State}}
	if s.store, err = store.Open(o.State, o.Limits); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.Close()) }()
	ledger, err := receiver.LoadLedger(filepath.Join(o.State, LedgerFile), o.Keys)
	if err != nil {
		o.Log.Printf("%v: it begins anew", err)
	}
	// A quarter of the share is for opening what is sealed.
	cost, verify, open := receiver.Cost(), o.CPU*3/4, o.CPU/4
	rates := receiver.Rates(verify, cost)
	s.receiver = receiver.New(receiver.Options{
		Mine: Mine(o.To), Ledger: ledger, Rates: rates, OpenRates: receiver.OpenRates(open, receiver.OpenCost(receiver.MaxSealKeys)), Queue: 8192, Replays: 1 << 19, Networks: 4096,
		Workers: max(runtime.GOMAXPROCS(0), 1), Sink: s.sink, Unseal: s.seal.Open,
	})
	if err := s.remember(ctx); err != nil {
		return err
	}
	if err := s.seal.Load(); err != nil {
		return err
	}
	if o.Receipts || len(o.Stop)+len(o.More) > 0 {
		if s.answerer, err = newAnswerer(o.State, o.Stop, o.More, s.seal.Key); err != nil {
			return err
		}
	}
	pins := newPins(filepath.Join(o.State, PinnedFile))
	if err := pins.apply(s.receiver); err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	var once sync.Once
	var first error
	task := func(run func() error) {
		group.Go(func() {
			if err := run(); err != nil {
				once.Do(func() { first = err })
			}
			cancel()
		})
	}
	for _, addr := range o.Listen {
		socket, err := receiver.Listen(addr, 16<<20)
		if err != nil {
			for _, x := range s.sockets {
				x.Close()
			}
			return err
		}
		s.sockets = append(s.sockets, socket)
		o.Log.Printf("receiving tracers at %s/udp", socket.Addr())
	}
	webs, err := s.listeners()
	if err != nil {
		for _, x := range s.sockets {
			x.Close()
		}
		return err
	}
	o.Log.Printf("a signature takes %v here: at most %.0f a second of known keys are verified, and %.0f of others", cost, rates[0], 2*rates[1])
	sd.SdNotify(false, sd.SdNotifyReady)
	defer sd.SdNotify(false, sd.SdNotifyStopping)
	for _, socket := range s.sockets {
		task(func() error {
			return socket.Run(ctx, s.receiver.Offer)
		})
	}
	for _, w := range webs {
		task(func() error { return w.run(ctx) })
	}
	group.Go(func() { s.receiver.Run(ctx) })
	group.Go(func() { s.keep(ctx, pins) })
	group.Wait()
	return errors.Join(first, s.saveLedger())
}

// sink stores what was taken.
func (s *Server) sink(x *receiver.Received) {
	s.recent.add(x)
	s.answer(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.store.Add(x); err != nil {
		s.fail(err)
	}
}

// fail counts a failure of the store, and says it now and then.
func (s *Server) fail(err error) {
	s.failures.Add(1)
	if time.Since(s.said) > time.Minute {
		s.options.Log.Print(err)
		s.said = time.Now()
	}
}

// remember reads the last minutes of the store, so that nothing is taken twice, and
// the last hour for the page.
func (s *Server) remember(ctx context.Context) error {
	since := time.Now().Add(-time.Hour)
	err := store.Read(ctx, s.options.State, since, nil, func(x *receiver.Received) error {
		if time.Since(x.Arrived) < 3*receiver.Window {
			s.receiver.Remember(x)
		}
		s.recent.add(x)
		return nil
	})
	var damaged store.Damaged
	if errors.As(err, &damaged) {
		s.options.Log.Print(err)
		return nil
	}
	return err
}

// keep writes to the medium, now and then, and looks whether something was pinned.
func (s *Server) keep(ctx context.Context, pins *pins) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	lastSync, lastLedger := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			s.mu.Lock()
			sync := now.Sub(lastSync) >= syncEvery
			if sync {
				lastSync = now
			}
			err := s.store.Flush()
			if sync {
				err = errors.Join(err, s.store.Prune(now))
			}
			s.mu.Unlock()
			if sync { // without the lock: a medium may take its time
				err = errors.Join(err, store.Sync(s.options.State))
			}
			if err != nil {
				s.mu.Lock()
				s.fail(fmt.Errorf("write the store: %w", err))
				s.mu.Unlock()
			}
			if sync {
				if err := errors.Join(pins.apply(s.receiver), s.seal.Load()); err != nil {
					s.options.Log.Print(err)
				}
			}
			if now.Sub(lastLedger) >= ledgerEvery {
				lastLedger = now
				if err := s.saveLedger(); err != nil {
					s.options.Log.Print(err)
				}
			}
		}
	}
}

func (s *Server) saveLedger() error {
	return s.receiver.SaveLedger(filepath.Join(s.options.State, LedgerFile), 2*s.options.Keys)
}

func (s *Server) overrun() (n uint64) {
	for _, x := range s.sockets {
		n += x.Overrun()
	}
	return n
}

// A serving is one HTTP server.
type serving struct {
	http     *http.Server
	listener net.Listener
	tls      bool
}

// listeners opens those of HTTP.
func (s *Server) listeners() (all []*serving, err error) {
	add := func(addr string, most int, secure bool, handler http.Handler, what string) {
		if err != nil {
			return
		}
		l, e := net.Listen("tcp", addr)
		if e != nil {
			err = fmt.Errorf("%s: %w", what, e)
			return
		}
		s.options.Log.Printf("%s at %s", what, l.Addr())
		srv := &http.Server{
			Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: 30 * time.Second,
			MaxHeaderBytes: 8 << 10, ErrorLog: log.New(discard{}, "", 0),
		}
		if secure {
			srv.TLSConfig = s.options.Cert.Clone()
		}
		all = append(all, &serving{srv, netutil.LimitListener(l, most), secure})
	}
	for _, a := range s.options.HTTP {
		add(a, maxPosters, false, http.HandlerFunc(s.post), "taking tracers by HTTP")
	}
	for _, a := range s.options.HTTPS {
		add(a, maxPosters, true, http.HandlerFunc(s.post), "taking tracers by HTTPS")
	}
	if s.options.Web != "" {
		add(s.options.Web, maxReaders, false, s.page(), "showing them by HTTP")
	}
	if err != nil {
		for _, x := range all {
			x.listener.Close()
		}
	}
	return all, err
}

// discard takes what strangers make the HTTP server complain of.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func (w *serving) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if w.http.Shutdown(last) != nil {
			w.http.Close()
		}
	})
	defer stop()
	var err error
	if w.tls {
		err = w.http.ServeTLS(w.listener, "", "")
	} else {
		err = w.http.Serve(w.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// pins are the keys that the owner pinned, in a file of one a line.
type pins struct {
	path  string
	stamp time.Time
	size  int64 // -1: not looked at yet; -2: there is none
}

func newPins(path string) *pins { return &pins{path: path, size: -1} }

// apply pins what is in the file, and unpins what was and is no more.
func (p *pins) apply(r *receiver.Receiver) error {
	info, err := os.Stat(p.path)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the pinned keys: %w", err)
		}
		info = nil
	}
	if info == nil && p.size == -2 || info != nil && info.Size() == p.size && info.ModTime().Equal(p.stamp) {
		return nil
	}
	keys, err := ReadPins(p.path)
	if err != nil {
		return err
	}
	p.size = -2
	if info != nil {
		p.size, p.stamp = info.Size(), info.ModTime()
	}
	now := time.Now().UnixMilli()
	r.Do(func(l *receiver.Ledger) {
		l.All(func(e *receiver.Entry) {
			if e.Pinned && !keys[e.Key] && !keys[e.Predecessor] { // whose successor inherits it
				l.Pin(e.Key, false, now)
			}
		})
		for k := range keys {
			if e := l.Find(k); e == nil || !e.Pinned {
				l.Pin(k, true, now)
			}
		}
	})
	return nil
}
