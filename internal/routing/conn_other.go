// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package routing

import (
	"net"
	"net/netip"
)

// A Conn is never made on this system.
type Conn struct{}

// Dial returns ErrSystem.
func Dial() (*Conn, error) { return nil, ErrSystem }

func (*Conn) Close() error                                         { return nil }
func (*Conn) Changed(func(*Route) bool) bool                       { return false }
func (*Conn) Addresses(func(*Address)) error                       { return ErrSystem }
func (*Conn) Routes(func(*Route)) error                            { return ErrSystem }
func (*Conn) Lookup(netip.Addr) (Route, error)                     { return Route{}, ErrSystem }
func (*Conn) Accepts(src, dst netip.Addr, in uint32) (bool, error) { return false, ErrSystem }

// Strict tells that nothing is known.
func Strict(string) bool { return false }

// LocalSources tells that nothing is known.
func LocalSources() bool { return true }

// Index returns the number of an interface of that name, if there is one.
func Index(name string) (index uint32, ok bool) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0, false
	}
	return uint32(i.Index), true
}
