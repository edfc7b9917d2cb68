// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
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

// While it has read all there were, the source lets datagrams gather for a rest
// before it reads them together: waking up for each would cost more than
// decoding it. The rest is so long that the kernel's buffer, whose size depends on
// the system, holds what comes meanwhile at a rate of burst a second; a datagram
// of 1,500 bytes takes perDatagram of it.
const (
	longest     = 10 * time.Millisecond
	burst       = 100_000
	perDatagram = 2304
)

func restOf(buffer int) time.Duration {
	return min(longest, time.Duration(buffer/perDatagram)*time.Second/burst)
}

// A UDP source receives datagrams from exporters.
type UDP struct {
	socket    *socket
	addr      netip.AddrPort
	exporters []netip.Prefix
}

// ListenUDP opens the socket. Datagrams whose sender is in none of the prefixes
// are counted and dropped.
func ListenUDP(addr netip.AddrPort, exporters []netip.Prefix) (*UDP, error) {
	network := "udp"
	if addr.Addr().Is4() {
		network = "udp4" // or 0.0.0.0 would be all of IPv6 too
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("receive flow export datagrams: %w", err)
	}
	addr = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	s, err := newSocket(conn)
	if err != nil {
		return nil, fmt.Errorf("receive flow export datagrams: %w", err)
	}
	return &UDP{s, addr, exporters}, nil
}

// Addr returns the address that the socket is bound to.
func (u *UDP) Addr() netip.AddrPort { return u.addr }

// Close closes the socket, if Run was never called.
func (u *UDP) Close() { u.socket.close() }

// CountOverrun asks the system how many datagrams it has dropped, as the buffer was
// full, and puts the number into the feed's counters. It may be called while Run
// runs.
func (u *UDP) CountOverrun(f *Feed) {
	if n, ok := u.socket.overrun(); ok {
		f.Counters.Overrun.Store(n)
	}
}

// maxFailures of the socket, one behind the other, end Run.
const maxFailures = 100

// Run receives until ctx is done, and closes the socket.
func (u *UDP) Run(ctx context.Context, f *Feed) error {
	stop := context.AfterFunc(ctx, u.socket.interrupt)
	defer func() {
		stop()
		u.CountOverrun(f)
		u.socket.close()
		f.finish()
	}()
	rest := restOf(u.socket.buffer)
	for failures := 0; ; {
		n, err := u.socket.receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // of an earlier datagram, as an ICMP error: the socket lives on
			if failures++; failures == maxFailures {
				return fmt.Errorf("receive flow export datagrams: %w", err)
			}
			nap(longest)
			continue
		}
		failures = 0
		now := time.Now().Unix()
		for i := range n {
			from, b := u.socket.datagram(i)
			if !u.allowed(from.Addr()) {
				add(&f.Counters.Drops[Stranger], 1)
				continue
			}
			f.receive(from, now, b)
		}
		if n < batch {
			nap(rest)
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
