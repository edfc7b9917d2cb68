// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package routing

import (
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A socket of rtnetlink.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
}

// dial opens a socket that hears of groups.
func dial(groups ...uint32) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn}
	for _, g := range groups {
		if err == nil {
			err = conn.JoinGroup(g)
		}
	}
	if err == nil {
		s.raw, err = conn.SyscallConn()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) send(kind, flags uint16, payload []byte) (sequence uint32, err error) {
	m, err := s.conn.Send(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.HeaderFlags(flags)}, Data: payload})
	return m.Header.Sequence, err
}

// receive reads into one buffer. Conn.Receive would gather the whole answer, which
// may be a million routes.
func (s *socket) receive(buffer []byte, wait int) (b []byte, err error) {
	if failed := s.raw.Control(func(fd uintptr) { b, err = receive(int(fd), buffer, wait) }); failed != nil {
		return nil, failed
	}
	return b, err
}
