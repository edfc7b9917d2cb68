// SPDX-License-Identifier: BSD-3-Clause

package routing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/nlmsg"
)

// A Conn asks for addresses and routes, and hears of changes. It takes no privilege.
// It is not safe for concurrent use.
type Conn struct {
	ask, hear *socket
	buffer    []byte
}

// Size of the receive buffer: the kernel never puts more of a dump into a datagram.
const largestBatch = 32 << 10

// patience is how long the kernel may take for an answer, or for the next part of
// one, in ms.
const patience = 2000

// groups of rtnetlink that tell of changes: links, and the addresses and routes of
// IPv4 and IPv6.
var groups = [...]uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE,
	unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE}

// Dial opens a Conn in the network namespace of the calling thread.
func Dial() (*Conn, error) {
	ask, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	hear, err := dial(groups[:]...)
	if err != nil {
		ask.close()
		return nil, fmt.Errorf("hear of changes of routes: %w", err)
	}
	return &Conn{ask: ask, hear: hear, buffer: make([]byte, largestBatch)}, nil
}

// Close closes the connection to the kernel.
func (c *Conn) Close() error { return errors.Join(c.ask.close(), c.hear.close()) }

// Changed tells whether something has changed since it was last called: an address,
// a link, a route that concerns says something about, or what one could not hear,
// as there was too much of it. It does not wait.
func (c *Conn) Changed(concerns func(*Route) bool) bool {
	changed := false
	for range 4096 { // and the rest the next time
		b, err := c.hear.receive(c.buffer, 0)
		if err != nil && err != unix.EAGAIN {
			changed = true // ENOBUFS: some are lost
		}
		if err == unix.EAGAIN || err != nil && err != unix.ENOBUFS {
			break
		}
		for len(b) > 0 && err == nil {
			var m nlmsg.Message
			if m, b, err = nlmsg.Cut(b); err != nil {
				changed = true
				break
			}
			switch m.Kind {
			case typeNewRoute, typeDelRoute:
				r, err := ParseRoute(m.Payload)
				changed = changed || err != nil || concerns(&r)
			default:
				changed = true
			}
		}
	}
	return changed
}

// Addresses calls f for each address of the system.
func (c *Conn) Addresses(f func(*Address)) error {
	for _, family := range families {
		err := c.request(typeGetAddress, nlmsg.Dump, []byte{family, 0, 0, 0, 0, 0, 0, 0}, func(m *nlmsg.Message) error {
			if m.Kind != typeNewAddress {
				return nil
			}
			a, err := ParseAddress(m.Payload)
			if err == nil {
				f(&a)
			}
			return err
		})
		if err != nil && !missing(err) {
			return fmt.Errorf("list addresses: %w", err)
		}
	}
	return nil
}

// Routes calls f for each route, of all tables. Its memory does not depend on how
// many they are.
func (c *Conn) Routes(f func(*Route)) error {
	for _, family := range families {
		err := c.request(typeGetRoute, nlmsg.Dump, []byte{family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, func(m *nlmsg.Message) error {
			if m.Kind != typeNewRoute {
				return nil
			}
			r, err := ParseRoute(m.Payload)
			if err == nil {
				f(&r)
			}
			return err
		})
		if err != nil && !missing(err) {
			return fmt.Errorf("list routes: %w", err)
		}
	}
	return nil
}

// missing tells whether the kernel was built without an address family.
func missing(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

// Lookup returns the route that a packet to the address takes, with the length of
// its prefix; ErrNone if there is none, or an old kernel does not tell the length
// (before Linux 4.13).
func (c *Conn) Lookup(to netip.Addr) (r Route, err error) {
	err = c.request(typeGetRoute, 0, appendQuery(nil, to, netip.Addr{}, 0), func(m *nlmsg.Message) error {
		if m.Kind != typeNewRoute {
			return nil
		}
		if len(m.Payload) >= 12 && binary.NativeEndian.Uint32(m.Payload[8:])&cloned != 0 {
			return ErrNone
		}
		r, err = ParseRoute(m.Payload)
		return err
	})
	if _, ok := errors.AsType[unix.Errno](err); ok || err == nil && !r.Prefix.IsValid() {
		return r, ErrNone
	}
	return r, err
}

// Accepts tells whether the kernel would take a packet that comes in at an
// interface: strict source validation (rp_filter) does not take one whose source
// is reached through another.
func (c *Conn) Accepts(src, dst netip.Addr, in uint32) (bool, error) {
	err := c.request(typeGetRoute, 0, appendQuery(nil, dst, src, in), func(*nlmsg.Message) error { return nil })
	if _, ok := errors.AsType[unix.Errno](err); ok {
		return false, nil
	}
	return err == nil, err
}

// request sends a request and calls f for each message of the answer. An error of f
// is returned when the answer is over.
func (c *Conn) request(kind, flags uint16, payload []byte, f func(*nlmsg.Message) error) error {
	sequence, err := c.ask.send(kind, nlmsg.Request|flags, payload)
	if err != nil {
		return err
	}
	var failed error
	for {
		b, err := c.ask.receive(c.buffer, patience)
		if err != nil {
			return err
		}
		for len(b) > 0 {
			var m nlmsg.Message
			if m, b, err = nlmsg.Cut(b); err != nil {
				return err
			}
			if m.Sequence != sequence { // the late answer to an earlier request
				continue
			}
			if m.Kind == nlmsg.Error || m.Kind == nlmsg.Done {
				return errors.Join(m.Err(), failed)
			}
			if err := f(&m); err != nil {
				failed = err
			}
			if m.Flags&nlmsg.Multi == 0 {
				return failed
			}
		}
	}
}

// receive reads a datagram into a buffer, and waits for it that many ms.
// The error is EAGAIN if there is none.
func receive(fd int, buffer []byte, wait int) ([]byte, error) {
	for {
		var from unix.RawSockaddrNetlink
		size := uint32(unix.SizeofSockaddrNetlink)
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && wait > 0:
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait); n == 0 && err == nil {
				return nil, unix.ETIMEDOUT
			}
		case errno != 0:
			return nil, errno
		case n > uintptr(len(buffer)):
			return nil, unix.EMSGSIZE
		case from.Pid == 0: // of the kernel, not of another process
			return buffer[:n], nil
		}
	}
}
