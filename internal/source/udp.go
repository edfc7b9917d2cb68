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
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
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

// Run receives until ctx is done, and closes the socket.
func (u *UDP) Run(ctx context.Context, f *Feed) error {
	stop := context.AfterFunc(ctx, u.socket.interrupt)
	defer func() {
		stop()
		u.socket.close()
		f.finish()
	}()
	rest := restOf(u.socket.buffer)
	for {
		n, err := u.socket.receive()
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
			from, b := u.socket.datagram(i)
			if !u.allowed(from.Addr()) {
				add(&f.Counters.Drops[Stranger], 1)
				continue
			}
			f.receive(from, now, b)
		}
		if overrun := u.socket.overrun(now); overrun != 0 {
			f.Counters.Overrun.Store(overrun)
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
