// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package tracer

// Shorten leaves out what can be missed first: the last reason, then where and how the
// verdict was found, then all. It tells whether there was anything.
func (e *Evidence) Shorten() bool {
	switch n := len(e.Suspicion); {
	case n > 1:
		e.Suspicion = e.Suspicion[:n-1]
	case e.Point != "":
		e.Point = ""
	case e.Method != "":
		e.Method = ""
	case n == 1 || e.Spoofed != "":
		*e = Evidence{}
	default:
		return false
	}
	return true
}
