// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"strings"
	"testing"

	"github.com/overflowd/overflowd/board/machine"
)

func TestBoardBootsAndTheProgramsTellTheirVersion(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		for _, name := range []string{"overflowd-mini", "overflowd"} {
			m := b.Start(t, options(t, b, name))
			m.MountRoot(b)
			version := m.Run("/usr/bin/overflowd", "--version")
			t.Logf("%s: %s after %.1f s: %s", b.Name, name, m.Boot.Seconds(), version)
			if !strings.HasPrefix(version, "overflowd 0.") {
				t.Errorf("%s says %q", name, version)
			}
			m.Halt()
		}
	})
}
