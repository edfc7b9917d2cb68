// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/tracer"
)

const (
	// batch is how many datagrams one system call takes.
	batch = 64
	// slot is one byte more than a datagram may have: what is larger is cut there
	// and refused.
	slot = tracer.MaxDatagram + 1
	// controlSize holds a TTL or a hop limit, an int each.
	controlSize = 32
	// firstTTL is what tracers leave with.
	firstTTL = 255
)

// A Socket receives datagrams, in batches, with the number of hops that each took.
type Socket struct {
	// Share of the time in which Run may be busy, above 0 and below 1; 0: all of it.
	// It is set before Run. What comes meanwhile waits in the kernel, or is dropped
	// there when its buffer is full.
	Share float64

	messages [batch]mmsghdr
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	controls [batch][controlSize]byte
	memory   [batch][slot]byte

	mu sync.Mutex // guards fd against its closing
	fd int        // -1 when closed
}

type mmsghdr struct {
	header unix.Msghdr
	n      uint32
}

// Listen opens a socket at an address; an IPv6 one is for IPv6 only. buffer is
// how many bytes the kernel is asked to hold for us; it may give less.
func Listen(addr netip.AddrPort, buffer int) (*Socket, error) {
	s, err := listen(addr, buffer)
	if err != nil {
		return nil, fmt.Errorf("receive tracers at %s: %w", addr, err)
	}
	return s, nil
}

func listen(addr netip.AddrPort, buffer int) (s *Socket, err error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	conn, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s = &Socket{fd: -1}
	var failed error
	err = raw.Control(func(fd uintptr) {
		// Ours, and blocking: Go's poller would wake up for each datagram.
		if s.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
			failed = unix.SetNonblock(s.fd, false)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		s.Close()
		return nil, err
	}
	level, option := unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT
	if addr.Addr().Is4() {
		level, option = unix.IPPROTO_IP, unix.IP_RECVTTL
	}
	if err := unix.SetsockoptInt(s.fd, level, option, 1); err != nil {
		s.Close()
		return nil, fmt.Errorf("ask for the TTL: %w", err)
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer) != nil {
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	for i := range s.messages {
		s.vectors[i].Base = &s.memory[i][0]
		s.vectors[i].SetLen(slot)
		h := &s.messages[i].header
		h.Iov = &s.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Control = &s.controls[i][0]
	}
	return s, nil
}

// Addr returns the address that the socket is bound to.
func (s *Socket) Addr() netip.AddrPort {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Close closes the socket, if Run was never called.
func (s *Socket) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

func (s *Socket) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Shutdown(s.fd, unix.SHUT_RD) // which wakes even the reader of an unconnected socket
	}
}

// Overrun returns how many datagrams the kernel has dropped, because its buffer was
// full. It may be called while Run runs.
func (s *Socket) Overrun() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return 0
	}
	var info [9]uint32 // SK_MEMINFO_VARS; the last is SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return uint64(info[8])
}

// maxFailures of the socket, one behind the other, end Run.
const maxFailures = 100

// rest is how long datagrams gather, when all there were are read: to wake up for
// each costs more than to look at it.
const rest = 2 * time.Millisecond

// longRest is how long it rests at least to keep to its share.
const longRest = 10 * time.Millisecond

// Run hands what comes to take, until ctx is done, and closes the socket. hops is
// -1 if the system did not tell. The bytes are valid until take returns.
func (s *Socket) Run(ctx context.Context, take func(b []byte, from netip.AddrPort, hops int, now time.Time)) error {
	stop := context.AfterFunc(ctx, s.interrupt)
	defer func() {
		stop()
		s.Close()
	}()
	debt := time.Duration(0) // of rest, for what was done
	for failures := 0; ; {
		begin := time.Now()
		n, err := s.receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if failures++; failures == maxFailures {
				return fmt.Errorf("receive tracers: %w", err)
			}
			nap(10 * time.Millisecond)
			continue
		}
		failures = 0
		now := time.Now()
		for i := range n {
			from, b, hops := s.datagram(i)
			take(b, from, hops, now)
		}
		if n < batch {
			begin = now // before that it waited
			nap(rest)
			debt = max(debt-rest, 0)
		}
		if s.Share > 0 {
			busy := time.Since(begin)
			if n < batch {
				busy -= min(busy, rest)
			}
			debt += time.Duration(float64(busy) * (1/s.Share - 1))
			if debt >= longRest {
				nap(debt)
				debt = 0
			}
		}
	}
}

func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&ts, nil)
}

func (s *Socket) receive() (int, error) {
	for i := range s.messages {
		h := &s.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages)), batch, unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (s *Socket) datagram(i int) (from netip.AddrPort, b []byte, hops int) {
	name := &s.names[i]
	port := (*[2]byte)(unsafe.Pointer(&name.Port)) // in network byte order, whatever the host's
	addr := netip.AddrFrom16(name.Addr)
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	m := &s.messages[i]
	return netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])), s.memory[i][:m.n], hopsOf(s.controls[i][:min(int(m.header.Controllen), controlSize)])
}

// hopsOf reads the first control message: a header and an int, in the byte order
// of the machine.
func hopsOf(control []byte) int {
	if len(control) < unix.CmsgLen(4) {
		return -1
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if !(h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL || h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT) {
		return -1
	}
	ttl := *(*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
	if ttl < 0 || ttl > firstTTL {
		return -1
	}
	return firstTTL - int(ttl)
}

// Reply sends a datagram from one of our addresses, at the port of the socket. The
// socket must be of the family of the addresses. It may be called while Run runs.
func (s *Socket) Reply(b []byte, from netip.Addr, to netip.AddrPort) error {
	var control []byte
	var sa unix.Sockaddr
	if from.Is4() {
		control = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: from.As4()})
		sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	} else {
		control = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: from.As16()})
		sa = &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	return unix.Sendmsg(s.fd, b, control, sa, unix.MSG_DONTWAIT)
}
