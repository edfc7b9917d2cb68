// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// receiveBuffer is what the kernel is asked to hold for us while we are busy.
// It may give less (net.core.rmem_max).
const receiveBuffer = 4 << 20

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
	conn.SetReadBuffer(receiveBuffer) // as much as the kernel gives
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
	// One byte more than the largest datagram there is.
	buf := make([]byte, 65536)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // of an earlier datagram, as an ICMP error: the socket lives on
		}
		if !u.allowed(from.Addr().Unmap()) {
			f.Counters.Drops[Stranger].Add(1)
			continue
		}
		f.receive(buf[:n])
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
