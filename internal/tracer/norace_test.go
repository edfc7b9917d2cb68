// SPDX-License-Identifier: BSD-3-Clause

//go:build !race

package tracer

const raceEnabled = false
