// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package daemon

import (
	"context"
	"errors"

	"github.com/overflowd/overflowd/internal/sender"
)

var errReceive = errors.New("--receive: this smallest build cannot receive tracers")

// receiving does nothing.
type receiving struct{ tell <-chan func() }

func (*daemon) openReceiving() error { return errReceive }

func (*daemon) takeReceipts(*sender.UDP) {}
func (*daemon) usePosting()              {}

// pinned keys there are none.
type pinned struct{}

func (*daemon) keepPins(bool) {}
func (*daemon) serveWanting() {}

func (*daemon) postingJSON(*object)                      {}
func (*daemon) postingText(func(string, string, ...any)) {}

func (*receiving) run(context.Context)               {}
func (*receiving) close()                            {}
func (*receiving) end() error                        { return nil }
func (*receiving) tick()                             {}
func (*receiving) json(*object)                      {}
func (*receiving) text(func(string, string, ...any)) {}
