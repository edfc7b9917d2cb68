// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package receiver

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

var errLinux = errors.New("tracers are received on Linux only")

// A Socket receives datagrams, on Linux.
type Socket struct{ Share float64 }

// Listen returns an error.
func Listen(netip.AddrPort, int) (*Socket, error) { return nil, errLinux }

// Addr returns no address.
func (*Socket) Addr() netip.AddrPort { return netip.AddrPort{} }

// Close does nothing.
func (*Socket) Close() {}

// Overrun returns 0.
func (*Socket) Overrun() uint64 { return 0 }

// Reply returns an error.
func (*Socket) Reply([]byte, netip.Addr, netip.AddrPort) error { return errLinux }

// Run returns an error.
func (*Socket) Run(context.Context, func([]byte, netip.AddrPort, int, time.Time)) error {
	return errLinux
}
