// SPDX-License-Identifier: BSD-3-Clause

// Package daemon runs the program: one goroutine for each source of records, the
// hot side, and one that signs, prints and sends, the cold side.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/overflowd/overflowd/internal/capture"
	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/pcapfile"
	"github.com/overflowd/overflowd/internal/selector"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/sender/policy"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

// queue is how many hits may wait for the cold side.
const queue = 256

// tick is how often held-back notices and counters are looked at.
const tick = time.Second

// Run does what the configuration says until it is done or ctx is. Tracers go to
// out, one a line; the log gets changes of state and, at the end, the sums.
func Run(ctx context.Context, c *config.Config, out io.Writer, logger *log.Logger) error {
	store := identity.Open(c.StateDir)
	if _, err := store.Load(); err != nil && !errors.Is(err, identity.ErrNone) {
		return err // now and not at the first tracer, which may be a day away
	}
	d := &daemon{config: c, log: logger, printer: newPrinter(out),
		signer: newSigner(store), started: time.Now(), asked: make(chan statusRequest), overran: map[*source.Counters]bool{}}

	var status *listener
	running := false
	defer func() {
		if running {
			return // and what runs closes them
		}
		if status != nil {
			status.close()
		}
		if d.udp != nil {
			d.udp.Close()
		}
		if d.capture != nil {
			d.capture.Close()
		}
		if d.tracked != nil {
			d.tracked.Close()
		}
		d.received.close()
	}()
	hits := make(chan source.Hit, queue) // closed when the hot side is done
	d.policy = policy.New(c.Private, c.Listen.Port())
	d.policy.SetNever(c.Never)
	if err := d.openEvidence(); err != nil {
		return err
	}
	if err := d.open(ctx, hits); err != nil {
		return err
	}
	if err := d.openNAT(); err != nil {
		return err
	}
	if c.Receive {
		if err := d.openReceiving(); err != nil {
			return err
		}
	}
	if c.Sends() {
		if err := d.newSender(); err != nil {
			return err
		}
		defer d.transport.Close()
	}
	var err error
	if c.PcapFile == "" {
		if status, err = d.openStatus(); err != nil {
			return err
		}
	}
	keep, rest := d.keep()
	if err := dropPrivileges(c.User, c.StateDir, status, keep, rest, logger); err != nil {
		return err
	}
	running = true
	sd.SdNotify(false, sd.SdNotifyReady)
	defer sd.SdNotify(false, sd.SdNotifyStopping)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hotErr error // the first of the sources
	var once sync.Once
	var sources, answering sync.WaitGroup
	for _, run := range d.sources {
		sources.Go(func() {
			if err := run(ctx); err != nil {
				once.Do(func() { hotErr = err })
				cancel()
			}
		})
	}
	go func() {
		sources.Wait()
		close(hits)
	}()
	answering.Go(func() { d.received.run(ctx) })
	if status != nil {
		answering.Go(func() { d.serveStatus(ctx, status) })
	}
	if d.known.list.path != "" {
		answering.Go(func() { d.known.list.watch(ctx, d.log) })
	}
	coldErr := d.cold(hits, cancel) // until hits is closed
	cancel()
	answering.Wait()
	d.keepPins(true)
	if !errors.Is(hotErr, pcapfile.ErrNotCapture) {
		d.sums()
	}
	return errors.Join(coldErr, hotErr, d.received.end())
}

type daemon struct {
	config       *config.Config
	log          *log.Logger
	sources      []func(context.Context) error // run what follows, as far as it is not nil
	feed         *source.Feed                  // of exporters or a file
	udp          *source.UDP
	watch        *source.Watch // of interfaces or a file
	capture      *source.Capture
	file         *source.File
	tracked      *tracked // of connections
	nat          *evidence.NAT
	known        known // of flows
	signer       *signer
	printer      *printer
	sender       *sender.Sender // nil: print only
	transport    *sender.UDP    // nil: no datagrams are sent
	pins         pinned
	posted       <-chan func() // what attempts to post came to; nil if none are made
	policy       *policy.Policy
	own          time.Time // when our own addresses were looked up
	said         [source.Reasons]bool
	overran      map[*source.Counters]bool // that the system dropped something was said
	taps         []source.State            // of the interfaces, as it was said
	thin         uint32                    // likewise
	uncounted    string                    // why connections have no counters, as it was said
	untranslated bool                      // that connections cannot be looked up was said
	started      time.Time
	asked        chan statusRequest // unbuffered, never closed
	history      history
	recents      recents
	received     receiving
	answers      chan func() // of 16, never closed; when it is full they are dropped; nil if none are taken
	failed       time.Time   // when a failure to sign was last logged
	unsaid       uint64      // hits that could not be signed
}

// open opens the sources.
func (d *daemon) open(ctx context.Context, hits chan<- source.Hit) error {
	c := d.config
	var seed [32]byte
	newSelector := selector.New
	if c.Seed != nil {
		seed = *c.Seed
		newSelector = func(p float64) (*selector.Selector, error) {
			seed[31]++ // each source has its own
			return selector.NewSeeded(p, seed)
		}
		d.log.Print("--seed makes the selection predictable: for tests and demonstrations only")
	}
	sink := source.Sink{Hits: hits, Wait: c.PcapFile != ""}
	if c.PcapFile != "" || c.Listen.IsValid() {
		draw, err := source.NewDraw(c.Rate, c.Boosted, newSelector)
		if err != nil {
			return err
		}
		d.feed = source.NewFeed(ctx, source.Options{Draw: draw, Sink: sink, Exporters: c.Remember, Intervals: c.Intervals,
			Detector: d.newDetector(0, false), Interfaces: d.known.exported})
	}
	if c.PcapFile != "" || len(c.Interfaces) > 0 {
		d.watch = source.NewWatch(ctx, sink, c.Flows, d.newDetector(c.Flows, c.PcapFile == ""))
	}
	if c.PcapFile != "" {
		return d.openFile(newSelector)
	}
	var err error
	if c.Listen.IsValid() {
		if d.udp, err = source.ListenUDP(c.Listen, c.Exporters); err != nil {
			return err
		}
		d.log.Printf("listening for NetFlow, IPFIX and sFlow on %s", d.udp.Addr())
		d.sources = append(d.sources, func(ctx context.Context) error { return d.udp.Run(ctx, d.feed) })
	}
	if len(c.Interfaces) > 0 {
		o := source.Capturing{Interfaces: c.Interfaces, Filter: capture.Filter{Thin: c.Thin}, Auto: c.ThinAuto,
			Rate: c.Rate, Boosted: c.Boosted, Selector: newSelector, Guards: d.known.origins.Guards}
		if c.Listen.IsValid() {
			o.Filter.Exports = []capture.Export{{To: c.Listen, From: c.Exporters}}
		}
		if d.capture, err = source.NewCapture(d.watch, o); err != nil {
			return err
		}
		d.sources = append(d.sources, d.capture.Run)
	}
	if c.Conntrack {
		draw, err := source.NewDraw(c.Rate, c.Boosted, newSelector)
		if err != nil {
			return err
		}
		if err := d.openTracked(ctx, sink, draw); err != nil {
			return err
		}
		d.sources = append(d.sources, d.tracked.Run)
	}
	return nil
}

// openNAT makes what names flows as the Internet sees them.
func (d *daemon) openNAT() error {
	d.nat = &evidence.NAT{Reachable: d.policy.Reachable}
	if !d.config.NAT {
		return nil
	}
	lookup, err := openLookup()
	if err != nil {
		d.log.Printf("private ends keep their addresses, and their flows are not sent: %v", err)
		return nil
	}
	d.nat.Lookup = lookup
	return nil
}

func (d *daemon) openFile(newSelector func(float64) (*selector.Selector, error)) error {
	draw, err := source.NewDraw(d.config.Rate, d.config.Boosted, newSelector)
	if err != nil {
		return err
	}
	file := os.Stdin
	if d.config.PcapFile != "-" {
		if file, err = os.Open(d.config.PcapFile); err != nil {
			return err
		}
	}
	d.file = &source.File{Frames: d.config.Frames, Feed: d.feed, Watch: d.watch, Draw: draw}
	d.sources = append(d.sources, func(ctx context.Context) error {
		defer file.Close()
		return d.readFile(ctx, file)
	})
	return nil
}

func (d *daemon) readFile(ctx context.Context, file io.Reader) error {
	err := d.file.Read(ctx, file)
	switch {
	case errors.Is(err, pcapfile.ErrTruncated) || errors.Is(err, pcapfile.ErrCorrupt):
		d.log.Printf("%s is %v: it was read to its last whole record", d.config.PcapFile, err)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", d.config.PcapFile, err)
	}
	return nil
}

// keep returns the capabilities that are needed when all is open, and those that
// are needed now and then.
func (d *daemon) keep() (keep, rest capabilities) {
	if d.capture != nil {
		keep |= netRaw
	}
	if d.config.NAT {
		rest |= netAdmin
	}
	return keep, rest
}

// counters returns those of the sources.
func (d *daemon) counters() []*source.Counters {
	var all []*source.Counters
	if d.feed != nil {
		all = append(all, &d.feed.Counters)
	}
	if d.watch != nil {
		all = append(all, &d.watch.Counters)
	}
	if d.tracked != nil {
		all = append(all, &d.tracked.Counters)
	}
	return all
}

// observed returns the bytes of layer 3 that were seen.
func (d *daemon) observed() (n uint64) {
	for _, c := range d.counters() {
		n += c.Bytes.Load()
	}
	return n
}

func (d *daemon) newSender() error {
	if err := d.lookUpOwn(); err != nil {
		return fmt.Errorf("look up our own addresses, which are never sent to: %w", err)
	}
	o := sender.Options{
		Policy: d.policy, Signer: d.signer,
		Observed: d.observed,
		Sent:     func(t *tracer.Tracer, s *tracer.Signed) { d.print(t, s) },
	}
	if d.config.SendUDP {
		transport, err := sender.OpenUDP()
		if err != nil {
			return err
		}
		d.transport, o.Transport = transport, transport
	}
	d.sender = sender.New(o)
	d.usePosting()
	if d.transport != nil {
		d.takeReceipts(d.transport)
	}
	return nil
}

// lookUpOwn asks for our own addresses: they change with every dial-up.
func (d *daemon) lookUpOwn() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	var own []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ones, _ := n.Mask.Size()
				own = append(own, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
	}
	d.policy.SetOwn(own)
	d.own = time.Now()
	return nil
}

// cold takes the hits until the hot side closes the channel. An error of the
// output, or of the key while a file is read, ends the program.
func (d *daemon) cold(hits <-chan source.Hit, cancel func()) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var failed error
	supervisor := newSupervisor(d.log.Printf)
	d.complain()
	for {
		select {
		case h, ok := <-hits:
			if !ok {
				for d.config.PcapFile != "" && d.sender.Posting() { // at most some seconds
					(<-d.posted)()
				}
				return errors.Join(failed, d.printer.flush())
			}
			if failed == nil {
				if failed = d.hit(&h); failed != nil {
					cancel() // and drain, so that the hot side can end
				}
			}
			if len(hits) > 0 {
				continue
			}
		case post := <-d.posted:
			post()
		case answer := <-d.answers:
			answer()
			continue
		case tell := <-d.received.tell:
			tell()
			continue
		case r := <-d.asked:
			r.answer <- r.what()
			continue
		case <-ticker.C:
			d.known.origins.Refresh()
			d.complain()
			d.remember()
			supervisor.tell(d)
			d.received.tick()
			if (d.sender != nil || d.config.Receive) && time.Since(d.own) > time.Minute {
				d.lookUpOwn() // if it fails, those known before stand
			}
			if d.sender != nil {
				d.keepPins(false)
				d.serveWanting()
				if failed == nil {
					if failed = d.keyError(d.sender.Drain()); failed != nil {
						cancel()
					}
				}
			}
		}
		if failed == nil {
			if failed = d.printer.flush(); failed != nil {
				cancel()
			}
		}
	}
}

func (d *daemon) hit(h *source.Hit) error {
	about := d.about(h)
	if d.sender != nil {
		if err := d.sender.Offer(&h.Record, &about, h.Rate, h.Selected); err != nil {
			return err
		}
		return d.keyError(d.sender.Drain())
	}
	t := tracer.Tracer{Flow: h.Record, Contact: about.Contact, Evidence: about.Evidence, Rate: h.Rate, Selected: h.Selected}
	signed, err := d.signer.Sign(&t)
	if err != nil {
		return d.keyError(err)
	}
	return d.print(&t, &signed)
}

func (d *daemon) print(t *tracer.Tracer, signed *tracer.Signed) error {
	d.recents.add(t)
	return d.printer.print(signed)
}

// keyError deals with a key that cannot be had: reading a file ends there, a
// daemon goes on, as the flash of a router may have room again.
func (d *daemon) keyError(err error) error {
	if err == nil || d.config.PcapFile != "" {
		return err
	}
	d.unsaid++
	if time.Since(d.failed) > time.Minute {
		d.log.Printf("no tracer can be signed: %v", err)
		d.failed = time.Now()
	}
	return nil
}
