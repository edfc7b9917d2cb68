// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams one system call takes.
const batch = 16

// A socket reads datagrams, up to batch at once (recvmmsg(2)). It blocks its
// thread: Go's poller would wake up for each datagram that comes, also while
// they are to gather.
type socket struct {
	buffer   int // bytes that the kernel holds for us
	messages [batch]message
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	memory   []byte // of the datagrams, of which the largest fits

	mu sync.Mutex // guards fd against its closing
	fd int        // -1 when closed
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	n      uint32
}

// newSocket takes the connection's socket over and closes the connection.
func newSocket(conn *net.UDPConn) (s *socket, err error) {
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s = &socket{fd: -1}
	defer func() {
		if err != nil && s.fd >= 0 {
			unix.Close(s.fd)
		}
	}()
	var failed error
	err = raw.Control(func(fd uintptr) {
		if s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
			failed = unix.SetNonblock(s.fd, false)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // as much as the kernel gives
	}
	s.buffer, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	// Not of the heap, which would grow by it what the collector lets gather.
	s.memory, err = unix.Mmap(-1, 0, batch*largest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		err = fmt.Errorf("memory for datagrams: %w", err)
		return nil, err
	}
	for i := range s.messages {
		s.vectors[i].Base = &s.memory[i*largest]
		s.vectors[i].SetLen(largest)
		h := &s.messages[i].header
		h.Iov = &s.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
	}
	return s, nil
}

// interrupt ends receive. It may be called by another goroutine.
func (s *socket) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Shutdown(s.fd, unix.SHUT_RD) // which wakes even the reader of an unconnected socket
	}
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return
	}
	unix.Close(s.fd)
	s.fd = -1
	unix.Munmap(s.memory)
}

// receive blocks until there are datagrams and returns how many it has read.
func (s *socket) receive() (int, error) {
	for i := range s.messages {
		s.messages[i].header.Namelen = unix.SizeofSockaddrInet6
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages)), batch, unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// datagram returns one that was read; it is valid until the next call of
// receive.
func (s *socket) datagram(i int) (from netip.AddrPort, b []byte) {
	name := &s.names[i]
	// In network byte order, whatever the host's.
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	addr := netip.AddrFrom16(name.Addr).Unmap()
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])), s.memory[i*largest:][:s.messages[i].n]
}

// overrun returns how many datagrams the kernel has dropped since the socket was
// opened, because its buffer was full. It may be called by another goroutine.
func (s *socket) overrun() (n uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return 0, false
	}
	var info [9]uint32 // SK_MEMINFO_VARS; the last is SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return uint64(info[8]), errno == 0 && size == uint32(unsafe.Sizeof(info))
}

// nap sleeps in the kernel: a timer of Go's would wake up other threads too.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&ts, nil)
}
