// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package daemon

import (
	"context"
	"errors"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/source"
)

// mini: this is the smallest build.
const mini = true

var (
	errMini      = errors.New("this smallest build cannot ask connection tracking")
	errConntrack = errors.New("--conntrack: this smallest build cannot ask connection tracking")
)

// tracked is never made.
type tracked struct {
	Counters                             source.Counters
	Connections, Uncounted, Inconsistent counter
}

type counter struct{}

func (counter) Load() uint64 { return 0 }

func (*tracked) Close()                    {}
func (*tracked) CountOverrun()             {}
func (*tracked) Failure() error            { return errMini }
func (*tracked) Run(context.Context) error { return errMini }

// checkBuild returns an error if this build cannot do what the configuration says.
func checkBuild(c *config.Config) error {
	if c.Conntrack {
		return errConntrack
	}
	if c.Receive {
		return errReceive
	}
	return nil
}

func (*daemon) openTracked(context.Context, source.Sink, source.Draw) error { return errMini }

func openLookup() (func(*flow.Key) (conntrack.Entry, error), error) { return nil, errMini }

func accounting() error { return errMini }
