// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package daemon

import (
	"context"
	"errors"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/conntrack"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/source"
)

// tracked is the source of connections, which the smallest build does not have:
// netlink is 130 kB of a router's flash and memory.
type tracked = source.Conntrack

// mini: this is the smallest build.
const mini = false

// checkBuild returns an error if this build cannot do what the configuration says.
func checkBuild(*config.Config) error { return nil }

func (d *daemon) openTracked(ctx context.Context, sink source.Sink, draw source.Draw) (err error) {
	d.tracked, err = source.NewConntrack(ctx, source.Tracking{Sink: sink, Draw: draw, Detector: d.newDetector(0, false), Flows: d.config.Flows,
		Privileged: func(f func()) { withCapability(netAdmin, f) }})
	return err
}

// openLookup opens what tells the connection of a packet.
func openLookup() (func(*flow.Key) (conntrack.Entry, error), error) {
	conn, err := conntrack.Dial()
	if err != nil {
		return nil, err
	}
	return func(k *flow.Key) (e conntrack.Entry, err error) {
		withCapability(netAdmin, func() { e, err = conn.Lookup(k) })
		return e, err
	}, nil
}

// accounting returns why connections have no counters, or nil.
func accounting() error {
	counted, err := conntrack.Accounting()
	if err == nil && !counted {
		err = errors.New("net.netfilter.nf_conntrack_acct is 0: set it to 1, for the connections that begin from then on")
	}
	return err
}
