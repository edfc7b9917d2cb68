// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package capture

import (
	"errors"

	"github.com/overflowd/overflowd/internal/packet"
)

// ErrNoInterface: there is none of that name now.
var ErrNoInterface = errors.New("no such interface")

// A Ring captures on one interface.
type Ring struct{}

// Open returns an error: there are rings on Linux only.
func Open(string, *Filter) (*Ring, error) {
	return nil, errors.New("packets are captured on Linux only")
}

func (r *Ring) SetFilter(*Filter) error { return nil }
func (r *Ring) Close()                  {}
func (r *Ring) Fd() int                 { return -1 }
func (r *Ring) Index() int              { return 0 }
func (r *Ring) Link() packet.LinkType   { return packet.Ethernet }
func (r *Ring) Full() uint64            { return 0 }
func (r *Ring) Gone() bool              { return true }
func (r *Ring) Down() bool              { return false }
func (r *Ring) Stats() Stats            { return Stats{} }
func (r *Ring) Next(*Frame) bool        { return false }
