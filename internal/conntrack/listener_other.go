// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package conntrack

// A Listener is told of the connections that end.
type Listener struct{}

func Listen() (*Listener, error) { return nil, errLinux }

func (*Listener) Receive(func(*Entry)) error { return errLinux }
func (*Listener) Interrupt()                 {}
func (*Listener) Close() error               { return errLinux }
func (*Listener) Malformed() uint64          { return 0 }
func (*Listener) Overruns() uint64           { return 0 }
