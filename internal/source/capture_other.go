// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package source

import "context"

// Run is never called: no ring can be opened.
func (c *Capture) Run(context.Context) error { return nil }

type wake struct{}

func newWake() (*wake, error) { return &wake{}, nil }
func (w *wake) close()        {}
