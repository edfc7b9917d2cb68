// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// receiveBuffer is what the kernel is asked to hold for us while we are busy, in
// bytes. It may give less (net.core.rmem_max), unless we are root.
const receiveBuffer = 4 << 20

// largest is one byte more than the largest datagram there is.
const largest = 65536

// rest is how long the source lets datagrams gather before it reads them
// together, when it has read all there were: waking up for each would cost more
// than decoding it. At 40,000 datagrams a second 80 of them gather; Linux'
// default buffer holds 180.
const rest = 2 * time.Millisecond

// A UDP source receives datagrams from exporters.
type UDP struct {
	conn      *net.UDPConn
	exporters []netip.Prefix
}

// ListenUDP opens the socket. Datagrams whose sender is in none of the prefixes
// are counted and dropped.
func ListenUDP(addr netip.AddrPort, exporters []netip.Prefix) (*UDP, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("receive flow export datagrams: %w", err)
	}
	enlarge(conn)
	return &UDP{conn, exporters}, nil
}

// Addr returns the address that the socket is bound to.
func (u *UDP) Addr() netip.AddrPort { return u.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close closes the socket, if Run was never called.
func (u *UDP) Close() error { return u.conn.Close() }

// Run receives until ctx is done, and closes the socket.
func (u *UDP) Run(ctx context.Context, f *Feed) error {
	stop := context.AfterFunc(ctx, func() { u.conn.Close() })
	defer func() {
		if stop() {
			u.conn.Close()
		}
	}()
	r, err := newReceiver(u.conn)
	if err != nil {
		return err
	}
	defer r.close()
	defer f.finish()
	for {
		n, err := r.wait()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // of an earlier datagram, as an ICMP error: the socket lives on
		}
		now := time.Now().Unix()
		for i := range n {
			from, b := r.datagram(i)
			if !u.allowed(from.Addr()) {
				add(&f.Counters.Drops[Stranger], 1)
				continue
			}
			f.receive(from, now, b)
		}
		if overrun := r.overrun(now); overrun != 0 {
			f.Counters.Overrun.Store(overrun)
		}
		if n < r.most() {
			time.Sleep(rest)
		}
	}
}

func (u *UDP) allowed(a netip.Addr) bool {
	for _, p := range u.exporters {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
