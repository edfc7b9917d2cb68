// SPDX-License-Identifier: BSD-3-Clause

package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// accounting is per network namespace, as all below /proc/sys/net.
const accounting = "/proc/sys/net/netfilter/nf_conntrack_acct"

// Accounting reports whether new connections get counters, in the network
// namespace of the calling thread. Those that began before it was turned on have
// none. The error wraps ErrMissing if there is no connection tracking.
func Accounting() (bool, error) { return readAccounting(accounting) }

func readAccounting(path string) (bool, error) {
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%w (%w)", ErrMissing, err)
	case err != nil:
		return false, fmt.Errorf("read whether connections are counted: %w", err)
	}
	return len(b) > 0 && b[0] != '0', nil
}
