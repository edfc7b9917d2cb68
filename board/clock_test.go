// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// TestNothingIsSentBeforeTheClockIsSet boots in 1970, as routers do that have no battery.
func TestNothingIsSentBeforeTheClockIsSet(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		o := options(t, b, "overflowd-mini")
		o.Date = "1970-01-02"
		m, n := newRouter(t, b, o)
		m.Do(control.Request{Clock: 3600})
		d := start(m, capturing)
		// Some 10 are selected, as each packet comes and goes.
		n.send(host4, far4, 5_000, func() bool { return false })
		if got := len(n.to(host4)) + len(n.to(far4)); got > 0 {
			t.Errorf("%d tracers in 1970", got)
		}
		m.Do(control.Request{Clock: time.Now().Unix()})
		n.send(host6, far6, 60_000, func() bool { return len(n.to(host6)) > 0 })
		if len(n.to(host6)) == 0 {
			t.Fatalf("no tracer when the clock is set: %s%s", d.Err(), m.Run("/usr/bin/overflowd", "status"))
		}
		if late := time.Since(time.UnixMilli(n.to(host6)[0].Time)); late < -time.Minute || late > 5*time.Minute {
			t.Errorf("the tracer was made %v ago", late)
		}
		jump := time.Now().AddDate(8, 0, 0)
		m.Do(control.Request{Clock: jump.Unix()})
		n.send("45.83.0.3", far4, 60_000, func() bool { return len(n.to("45.83.0.3")) > 0 })
		got := n.to("45.83.0.3")
		if len(got) == 0 {
			t.Fatalf("no tracer when the clock jumped by 8 years: %s", d.Err())
		}
		if at := time.UnixMilli(got[0].Time); at.Year() != jump.Year() {
			t.Errorf("the tracer after the jump was made at %v", at)
		}
		if code := d.Stop(unix.SIGTERM); code != 0 {
			t.Errorf("exit %d: %s", code, d.Err())
		}
	})
}
