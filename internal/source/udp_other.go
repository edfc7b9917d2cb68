// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package source

import (
	"net"
	"net/netip"
)

// A receiver reads datagrams from a socket, one at a time.
type receiver struct {
	conn *net.UDPConn
	buf  [largest]byte
	from netip.AddrPort
	n    int
}

func newReceiver(conn *net.UDPConn) (*receiver, error) { return &receiver{conn: conn}, nil }

func (r *receiver) close() {}

// most is less than what is ever read: there is no use in a rest.
func (r *receiver) most() int { return 0 }

func (r *receiver) wait() (int, error) {
	n, from, err := r.conn.ReadFromUDPAddrPort(r.buf[:])
	if err != nil {
		return 0, err
	}
	r.n, r.from = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

func (r *receiver) datagram(int) (from netip.AddrPort, b []byte) { return r.from, r.buf[:r.n] }

func (r *receiver) overrun(int64) uint64 { return 0 }

func enlarge(conn *net.UDPConn) { conn.SetReadBuffer(receiveBuffer) }
