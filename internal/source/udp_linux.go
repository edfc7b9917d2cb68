// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams one system call takes.
const batch = 16

// A receiver reads datagrams from a socket, up to batch at once (recvmmsg(2)).
type receiver struct {
	conn     *net.UDPConn
	raw      syscall.RawConn
	messages [batch]message
	vectors  [batch]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	memory   []byte // of the datagrams, which is taken as they are long
	read     func(fd uintptr) bool
	n        int
	errno    syscall.Errno
	asked    int64 // when the drops were, Unix seconds
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	n      uint32
}

func newReceiver(conn *net.UDPConn) (*receiver, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &receiver{conn: conn, raw: raw}
	// Not of the heap, which would grow by it what the collector lets gather.
	r.memory, err = unix.Mmap(-1, 0, batch*largest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for datagrams: %w", err)
	}
	for i := range r.messages {
		r.vectors[i].Base = &r.memory[i*largest]
		r.vectors[i].SetLen(largest)
		h := &r.messages[i].header
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	r.read = func(fd uintptr) bool {
		for i := range r.messages {
			r.messages[i].header.Namelen = unix.SizeofSockaddrInet6
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.messages)), batch, unix.MSG_DONTWAIT, 0, 0)
		r.n, r.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	return r, nil
}

func (r *receiver) close() { unix.Munmap(r.memory) }

func (r *receiver) most() int { return batch }

// wait blocks until there are datagrams and returns how many it has read.
func (r *receiver) wait() (int, error) {
	if err := r.raw.Read(r.read); err != nil {
		return 0, err
	}
	if r.errno != 0 {
		return 0, r.errno
	}
	return r.n, nil
}

// datagram returns one that was read; it is valid until the next wait.
func (r *receiver) datagram(i int) (from netip.AddrPort, b []byte) {
	name := &r.names[i]
	// In network byte order, whatever the host's.
	port := (*[2]byte)(unsafe.Pointer(&name.Port))
	addr := netip.AddrFrom16(name.Addr).Unmap()
	if name.Family == unix.AF_INET {
		addr = netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr)
	}
	return netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])), r.memory[i*largest:][:r.messages[i].n]
}

// overrun returns how many datagrams the kernel has dropped since the socket was
// opened, because its buffer was full. It asks once a second; 0 is no answer.
func (r *receiver) overrun(now int64) uint64 {
	if now == r.asked {
		return 0
	}
	r.asked = now
	var info [9]uint32 // SK_MEMINFO_VARS; the last is SK_MEMINFO_DROPS
	r.raw.Control(func(fd uintptr) {
		size := uint32(unsafe.Sizeof(info))
		unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return uint64(info[8])
}

// enlarge asks for a large receive buffer.
func enlarge(conn *net.UDPConn) {
	forced := error(unix.EPERM)
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			forced = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		})
	}
	if forced != nil {
		conn.SetReadBuffer(receiveBuffer) // as much as the kernel gives
	}
}
