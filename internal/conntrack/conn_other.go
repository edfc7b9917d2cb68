// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package conntrack

import (
	"errors"

	"github.com/overflowd/overflowd/internal/flow"
)

var errLinux = errors.New("connection tracking is read on Linux only")

// A Conn asks for connections.
type Conn struct{}

func Dial() (*Conn, error) { return nil, errLinux }

func (*Conn) Close() error                    { return errLinux }
func (*Conn) Lookup(*flow.Key) (Entry, error) { return Entry{}, errLinux }
func (*Conn) Dump(func(*Entry) error) error   { return errLinux }

func Accounting() (bool, error) { return false, errLinux }
