// SPDX-License-Identifier: BSD-3-Clause

// Package nlmsg cuts what the kernel says through netlink (RFC 3549, section 2.3.2) into
// messages, and their payload into attributes, without allocation. Each is padded to 4
// bytes; what is netlink's is in host byte order:
//
//	message    16  length 4, type 2, flags 2, sequence 4, port 4; payload
//	attribute   4  length 2, type 2; value
package nlmsg

import (
	"encoding/binary"
	"errors"
	"syscall"
)

// ErrFormat: a length is less than that of its header, or more than there is.
var ErrFormat = errors.New("malformed netlink message")

// Types of messages that all families have.
const (
	Error = 2 // NLMSG_ERROR
	Done  = 3 // NLMSG_DONE
)

// Flags of requests and answers.
const (
	Request     = 0x01  // NLM_F_REQUEST
	Multi       = 0x02  // NLM_F_MULTI
	Interrupted = 0x10  // NLM_F_DUMP_INTR
	Dump        = 0x300 // NLM_F_DUMP
)

// ofType are the bits of an attribute's type that are its type: not NLA_F_NESTED, and
// not NLA_F_NET_BYTEORDER.
const ofType = 0x3fff

// A Message is one of a datagram, in which its payload lies.
type Message struct {
	Kind, Flags uint16
	Sequence    uint32
	Payload     []byte
}

// Cut splits the first message off.
func Cut(b []byte) (m Message, rest []byte, err error) {
	if len(b) < 16 {
		return m, nil, ErrFormat
	}
	n := binary.NativeEndian.Uint32(b)
	if n < 16 || uint64(n) > uint64(len(b)) {
		return m, nil, ErrFormat
	}
	m.Kind, m.Flags = binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
	m.Sequence = binary.NativeEndian.Uint32(b[8:])
	m.Payload = b[16:n]
	return m, behind(b, int(n)), nil
}

// Err returns the error of the kernel, a syscall.Errno, that a message of type Error or
// Done bears, or nil.
func (m *Message) Err() error {
	if len(m.Payload) >= 4 {
		if n := -int32(binary.NativeEndian.Uint32(m.Payload)); n != 0 {
			return syscall.Errno(n)
		}
	}
	return nil
}

// CutAttribute splits the first attribute off.
func CutAttribute(b []byte) (kind uint16, value, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, ErrFormat
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < 4 || n > len(b) {
		return 0, nil, nil, ErrFormat
	}
	return binary.NativeEndian.Uint16(b[2:]) & ofType, b[4:n], behind(b, n), nil
}

// behind returns what follows n bytes and their padding.
func behind(b []byte, n int) []byte { return b[min(n+(-n&3), len(b)):] }
