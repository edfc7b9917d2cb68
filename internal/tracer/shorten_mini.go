// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package tracer

// Shorten leaves out all, and tells whether there was anything.
func (e *Evidence) Shorten() bool {
	if e.Spoofed == "" {
		return false
	}
	*e = Evidence{}
	return true
}
