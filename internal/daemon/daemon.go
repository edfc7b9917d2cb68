// SPDX-License-Identifier: BSD-3-Clause

// Package daemon runs the program: one goroutine for the source of records, the
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

	"github.com/overflowd/overflowd/internal/config"
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
		signer: newSigner(store, c.Contact), started: time.Now(), asked: make(chan statusRequest)}

	var listener *net.UnixListener
	running := false
	defer func() {
		if running {
			return // and what runs closes them
		}
		if listener != nil {
			listener.Close()
		}
		if d.udp != nil {
			d.udp.Close()
		}
	}()
	hits := make(chan source.Hit, queue) // closed by the hot side when it is done
	hot, err := d.open(ctx, hits)
	if err != nil {
		return err
	}
	if c.SendUDP {
		transport, err := sender.OpenUDP()
		if err != nil {
			return err
		}
		defer transport.Close()
		if err := d.newSender(transport); err != nil {
			return err
		}
	}
	if c.PcapFile == "" {
		if listener, err = d.openStatus(); err != nil {
			return err
		}
	}
	if err := dropPrivileges(c.User, c.StateDir, listener, logger); err != nil {
		return err
	}
	running = true
	sd.SdNotify(false, sd.SdNotifyReady)
	defer sd.SdNotify(false, sd.SdNotifyStopping)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1) // of the hot side's one result
	go func() {
		defer close(hits)
		done <- hot(ctx)
	}()
	var answering sync.WaitGroup
	if listener != nil {
		answering.Go(func() { d.serveStatus(ctx, listener) })
	}
	coldErr := d.cold(hits, cancel)
	hotErr := <-done
	cancel()
	answering.Wait()
	if !errors.Is(hotErr, pcapfile.ErrNotCapture) {
		d.sums()
	}
	return errors.Join(coldErr, hotErr)
}

type daemon struct {
	config  *config.Config
	log     *log.Logger
	feed    *source.Feed
	udp     *source.UDP // nil: a file is read
	signer  *signer
	printer *printer
	sender  *sender.Sender // nil: print only
	policy  *policy.Policy
	own     time.Time // when our own addresses were looked up
	said    [source.Reasons]bool
	overran bool // that the system dropped datagrams was said
	started time.Time
	asked   chan statusRequest // unbuffered, never closed
	failed  time.Time          // when a failure to sign was last logged
	unsaid  uint64             // hits that could not be signed
}

// open opens the source and returns what runs it.
func (d *daemon) open(ctx context.Context, hits chan<- source.Hit) (func(context.Context) error, error) {
	c := d.config
	var seed [32]byte
	newSelector := selector.New
	if c.Seed != nil {
		seed = *c.Seed
		newSelector = func(p float64) (*selector.Selector, error) { return selector.NewSeeded(p, seed) }
		d.log.Print("--seed makes the selection predictable: for tests and demonstrations only")
	}
	s, err := newSelector(c.Rate)
	if err != nil {
		return nil, err
	}
	d.feed = source.NewFeed(ctx, source.Options{
		Selector: s, Hits: hits, Wait: c.PcapFile != "", Exporters: c.Remember, Intervals: c.Intervals,
	})
	if c.PcapFile != "" {
		file := os.Stdin
		if c.PcapFile != "-" {
			if file, err = os.Open(c.PcapFile); err != nil {
				return nil, err
			}
		}
		return func(ctx context.Context) error {
			defer file.Close()
			return d.readFile(ctx, file)
		}, nil
	}
	if d.udp, err = source.ListenUDP(c.Listen, c.Exporters); err != nil {
		return nil, err
	}
	d.log.Printf("listening for NetFlow, IPFIX and sFlow on %s", d.udp.Addr())
	return func(ctx context.Context) error { return d.udp.Run(ctx, d.feed) }, nil
}

func (d *daemon) readFile(ctx context.Context, file io.Reader) error {
	err := source.ReadFile(ctx, file, d.feed)
	switch {
	case errors.Is(err, pcapfile.ErrTruncated) || errors.Is(err, pcapfile.ErrCorrupt):
		d.log.Printf("%s is %v: it was read to its last whole record", d.config.PcapFile, err)
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", d.config.PcapFile, err)
	}
	return nil
}

func (d *daemon) newSender(t sender.Transport) (err error) {
	d.policy = policy.New(d.config.Private, d.config.Listen.Port())
	if err := d.lookUpOwn(); err != nil {
		return fmt.Errorf("look up our own addresses, which are never sent to: %w", err)
	}
	d.sender, err = sender.New(sender.Options{
		Policy: d.policy, Signer: d.signer, Transport: t, Rate: d.config.Rate,
		Observed: d.feed.Counters.Bytes.Load,
		Sent:     func(s *tracer.Signed) { d.printer.print(s) },
	})
	return err
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
	for {
		select {
		case h, ok := <-hits:
			if !ok {
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
		case r := <-d.asked:
			d.tell(r)
			continue
		case <-ticker.C:
			d.complain()
			if d.sender != nil {
				if time.Since(d.own) > time.Minute {
					d.lookUpOwn() // if it fails, those known before stand
				}
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
	if d.sender != nil {
		d.sender.Offer(&h.Record, h.Selected)
		return d.keyError(d.sender.Drain())
	}
	signed, err := d.signer.Sign(&tracer.Tracer{Flow: h.Record, Rate: d.config.Rate, Selected: h.Selected})
	if err != nil {
		return d.keyError(err)
	}
	return d.printer.print(&signed)
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
