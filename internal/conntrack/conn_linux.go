// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/flow"
)

// Sizes of receive buffers: what one answer or event is smaller than, and what
// the kernel never puts more of a dump into.
const (
	largestMessage = 8 << 10
	largestBatch   = 32 << 10
)

// patience is how long the kernel may take for an answer, or for the next part
// of one.
const patience = 2 * time.Second

// A Conn asks for connections. The kernel wants CAP_NET_ADMIN of the process at
// each request. It is not safe for concurrent use.
type Conn struct {
	conn   *netlink.Conn
	reader *reader
	entry  Entry
}

// Dial opens a Conn in the network namespace of the calling thread. That alone
// takes no privilege.
func Dial() (*Conn, error) {
	conn, r, err := dial()
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, reader: r}, nil
}

func dial() (*netlink.Conn, *reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, nil, explain("open connection tracking", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, nil, explain("open connection tracking", err)
	}
	return conn, newReader(raw, largestMessage), nil
}

// explain says what an error of the kernel usually means.
func explain(verb string, err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s, which takes CAP_NET_ADMIN: %w", verb, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%s: %w (%w)", verb, ErrMissing, err)
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// Close closes the connection to the kernel.
func (c *Conn) Close() error { return c.conn.Close() }

// Lookup returns the connection that a packet is of, on whichever side of the
// translation and in whichever direction it was seen. It takes 2 seconds at most.
// The error is ErrNone if there is no such connection outside of zones, which no
// packet shows. Of ICMP and ICMPv6 it always is: the kernel knows their
// connections by an identifier, which a flow.Key does not have. Without
// CAP_NET_ADMIN it wraps os.ErrPermission.
func (c *Conn) Lookup(k *flow.Key) (Entry, error) {
	if k.Protocol == protoICMP || k.Protocol == protoICMPv6 || k.Family != flow.IPv4 && k.Family != flow.IPv6 {
		return Entry{}, ErrNone
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return Entry{}, explain("look up a connection", err)
	}
	// The kernel finds a connection by either of its two keys. A packet that was
	// translated already has neither, but the reverse of one.
	r := reverse(k)
	for _, key := range []*flow.Key{k, &r} {
		var found bool
		// The kernel marks its only message as one of several, of which an
		// acknowledgement is the end.
		err := c.ask(netlink.Acknowledge, appendQuery(nil, key), func(*Entry) { found = true })
		switch {
		case err == nil && found:
			return c.entry, nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return Entry{}, explain("look up a connection", err)
		}
	}
	return Entry{}, ErrNone
}

// Dump calls f for each connection of both address families and of all zones.
// The entry is valid until f returns. Its memory does not depend on the number of
// connections. If f returns an error, Dump calls it no more and returns that
// error, but not before the kernel is through: a dump cannot be called off.
//
// If the error is ErrInconsistent, or ErrFormat of an entry that was left out,
// f was called for all the others. Even without an error a connection may come
// twice if others ended meanwhile, or be missing if it is young.
func (c *Conn) Dump(f func(*Entry) error) error {
	if len(c.reader.buffer) < largestBatch {
		c.reader.buffer = make([]byte, largestBatch)
	}
	var failed error
	err := c.ask(netlink.Dump, make([]byte, 4), func(e *Entry) { // AF_UNSPEC
		if failed == nil {
			failed = f(e)
		}
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return explain("list connections", err)
	}
	return nil
}

// ask sends a request for connections and calls f for each in the answer.
func (c *Conn) ask(flags netlink.HeaderFlags, payload []byte, f func(*Entry)) error {
	request, err := c.conn.Send(netlink.Message{
		Header: netlink.Header{Type: typeGet, Flags: netlink.Request | flags},
		Data:   payload,
	})
	if err != nil {
		return err
	}
	var trouble error
	for {
		if flags&netlink.Dump != 0 {
			if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
		}
		b, err := c.reader.read(true)
		if err != nil {
			return err
		}
		done, err := take(b, request.Header.Sequence, &c.entry, f)
		if err != nil {
			trouble = err
		}
		if done {
			return trouble
		}
	}
}
