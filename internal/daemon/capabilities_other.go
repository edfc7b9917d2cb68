// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package daemon

import "errors"

type capabilities uint32

const (
	netRaw capabilities = 1 << iota
	netAdmin
)

var errThreads = errors.New("capabilities are Linux's")

func keepCapabilities() error { return errThreads }

func limitCapabilities(keep, rest capabilities) error { return errThreads }

func withCapability(_ capabilities, f func()) { f() }
