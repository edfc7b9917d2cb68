// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package source

import (
	"net"
	"net/netip"
	"time"
)

// batch is less than what is ever read: datagrams come one by one, and there is
// no use in a rest.
const batch = 0

// A socket reads datagrams, one at a time.
type socket struct {
	buffer int
	conn   *net.UDPConn
	memory [largest]byte
	from   netip.AddrPort
	n      int
}

func newSocket(conn *net.UDPConn) (*socket, error) {
	conn.SetReadBuffer(receiveBuffer) // as much as the kernel gives
	return &socket{conn: conn}, nil
}

func (s *socket) interrupt() { s.conn.Close() }

func (s *socket) close() { s.conn.Close() }

func (s *socket) receive() (int, error) {
	n, from, err := s.conn.ReadFromUDPAddrPort(s.memory[:])
	if err != nil {
		return 0, err
	}
	s.n, s.from = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

func (s *socket) datagram(int) (from netip.AddrPort, b []byte) { return s.from, s.memory[:s.n] }

func (s *socket) overrun() (uint64, bool) { return 0, false }

func nap(d time.Duration) { time.Sleep(d) }
