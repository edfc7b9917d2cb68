// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/nlmsg"
)

const (
	groupDestroy = 3 // NFNLGRP_CONNTRACK_DESTROY
	// eventBuffer is what the kernel is asked to hold for us, in bytes: about
	// 400 events, measured on Linux 6.18.
	eventBuffer = 256 << 10
	// maxBatch events are taken by one call of Receive.
	maxBatch = 1024
)

// A Listener is told of the connections that end, with their last counters.
type Listener struct {
	conn      *netlink.Conn
	reader    *reader
	entry     Entry
	overruns  atomic.Uint64 // as far as was asked
	malformed atomic.Uint64
	ended     atomic.Bool
}

// Listen starts to listen in the network namespace of the calling thread. It
// takes CAP_NET_ADMIN, without which the error wraps os.ErrPermission; to receive
// takes none.
//
// If net.netfilter.nf_conntrack_events is 2, as is usual, the kernel tells only
// of connections that began while somebody listened.
func Listen() (*Listener, error) {
	conn, r, err := dial()
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(eventBuffer) // as much as the kernel gives
	if err := conn.JoinGroup(groupDestroy); err != nil {
		conn.Close()
		return nil, explain("listen for ended connections", err)
	}
	return &Listener{conn: conn, reader: r}, nil
}

// Receive blocks until connections have ended and calls f for each that the
// kernel has told of, up to 1,024. The entry is valid until f returns. After
// Interrupt or Close the error is net.ErrClosed. Only one goroutine may call it.
func (l *Listener) Receive(f func(*Entry)) error {
	for n := 0; n < maxBatch; {
		b, err := l.reader.read(n == 0)
		switch {
		case errors.Is(err, unix.ENOBUFS): // what the buffer holds is still there
			continue
		case errors.Is(err, unix.EMSGSIZE):
			l.malformed.Add(1)
			continue
		case err != nil && l.ended.Load():
			return net.ErrClosed
		case err != nil:
			return explain("receive ended connections", err)
		case b == nil:
			return nil
		}
		l.decode(b, f)
		n++
	}
	return nil
}

func (l *Listener) decode(b []byte, f func(*Entry)) {
	for len(b) > 0 {
		var m nlmsg.Message
		var err error
		if m, b, err = nlmsg.Cut(b); err != nil {
			l.malformed.Add(1)
			return
		}
		if m.Kind != typeDestroy {
			continue
		}
		if parse(m.Payload, &l.entry) != nil {
			l.malformed.Add(1)
			continue
		}
		f(&l.entry)
	}
}

// Interrupt ends Receive, for good. It may be called by another goroutine.
func (l *Listener) Interrupt() {
	l.ended.Store(true)
	l.conn.SetReadDeadline(time.Unix(1, 0)) // netlink has no shutdown(2)
}

// Close ends Receive and closes the connection to the kernel. It may be called by
// another goroutine.
func (l *Listener) Close() error {
	l.ended.Store(true)
	return l.conn.Close()
}

// Malformed returns how many messages of the kernel were not understood. It may
// be called by another goroutine.
func (l *Listener) Malformed() uint64 { return l.malformed.Load() }

// Overruns returns how many events the kernel has dropped, because its buffer was
// full; 0 of a kernel before 4.12, which does not tell. It may be called by
// another goroutine.
func (l *Listener) Overruns() uint64 {
	l.reader.raw.Control(func(fd uintptr) {
		var info [9]uint32 // SK_MEMINFO_VARS; the last is SK_MEMINFO_DROPS
		size := uint32(unsafe.Sizeof(info))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
			l.overruns.Store(uint64(info[8]))
		}
	})
	return l.overruns.Load()
}
