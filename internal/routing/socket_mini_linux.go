// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package routing

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A socket of rtnetlink, without the library: that is 130 kB of a router's flash.
type socket struct {
	fd       int
	sequence uint32
}

// dial opens a socket that hears of groups.
func dial(groups ...uint32) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g))
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &socket{fd: fd}, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

func (s *socket) send(kind, flags uint16, payload []byte) (sequence uint32, err error) {
	s.sequence++
	b := make([]byte, 16, 64)
	binary.NativeEndian.PutUint32(b, uint32(16+len(payload)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], s.sequence)
	_, err = unix.Write(s.fd, append(b, payload...)) // to the kernel, as the socket is not connected
	return s.sequence, err
}

func (s *socket) receive(buffer []byte, wait int) ([]byte, error) { return receive(s.fd, buffer, wait) }
