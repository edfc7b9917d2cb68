// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A reader receives netlink datagrams into one buffer. netlink.Conn itself has a
// new one for each.
type reader struct {
	raw    syscall.RawConn
	buffer []byte
	// What receive, which is made a func value once, is told and tells.
	receive func(fd uintptr) bool
	wait    bool
	n       uintptr
	errno   syscall.Errno
	from    unix.RawSockaddrNetlink
	size    uint32 // of from
}

func newReader(raw syscall.RawConn, size int) *reader {
	r := &reader{raw: raw, buffer: make([]byte, size)}
	r.receive = r.recvfrom
	return r
}

// read returns the next datagram, which is valid until the next call; nil if
// there is none and it shall not wait.
func (r *reader) read(wait bool) ([]byte, error) {
	r.wait = wait
	err := r.raw.Read(r.receive)
	switch {
	case err != nil:
		return nil, err
	case r.errno == unix.EAGAIN:
		return nil, nil
	case r.errno != 0:
		return nil, r.errno
	case r.n > uintptr(len(r.buffer)):
		return nil, unix.EMSGSIZE
	}
	return r.buffer[:r.n], nil
}

func (r *reader) recvfrom(fd uintptr) (done bool) {
	for {
		r.size = unix.SizeofSockaddrNetlink
		r.n, _, r.errno = unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.buffer[0])), uintptr(len(r.buffer)),
			unix.MSG_TRUNC, uintptr(unsafe.Pointer(&r.from)), uintptr(unsafe.Pointer(&r.size)))
		switch {
		case r.errno == unix.EINTR:
		case r.errno == 0 && r.from.Pid != 0: // of another process, not of the kernel
		default:
			return r.errno != unix.EAGAIN || !r.wait
		}
	}
}
