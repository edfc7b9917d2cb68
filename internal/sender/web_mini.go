// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package sender

import (
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/tracer"
)

// posts tells whether this build posts and seals.
const posts = false

// The smallest build sends datagrams that anybody can read, and nothing else.
type (
	Web     struct{}
	attempt struct{}
	seals   struct{}
)

func (*Web) has(*flow.Key, func(netip.Addr) bool) bool { return false }
func (*Web) wants(netip.Addr, time.Duration) bool      { return false }
func (*Web) ready(netip.Addr, time.Duration) bool      { return false }
func (*Web) tells(netip.Addr, time.Duration) bool      { return false }

func (*seals) require() bool                                         { return false }
func (*seals) has(netip.Addr, time.Duration) bool                    { return false }
func (*seals) seal(*[]byte, netip.Addr, time.Duration) (bool, error) { return false, nil }

func (*Sender) posting(*tracer.Tracer, *tracer.Signed, []byte, bool, time.Duration) *attempt {
	return nil
}
func (*Sender) post(*attempt, time.Duration) {}
func (*Sender) sweep(time.Duration)          {}
func (*Sender) byWeb(netip.Addr) bool        { return false }
func (*attempt) cost() uint64                { return 0 }

// Posting is never.
func (*Sender) Posting() bool { return false }
