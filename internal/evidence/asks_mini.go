// SPDX-License-Identifier: BSD-3-Clause

//go:build mini

package evidence

// asks tells whether recipients may ask for more tracers.
const asks = false
