// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// statusEvery is how often the supervisor is told what was seen.
const statusEvery = 30 * time.Second

// supervisor is systemd, or what else speaks sd_notify(3), if there is one.
type supervisor struct {
	watchdog    time.Duration // restarts us when it hears nothing for so long; 0: it does not
	alive, told time.Time     // when it last heard of us, and what was seen
}

func newSupervisor(log func(string, ...any)) *supervisor {
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log("no watchdog: %v", err)
	}
	return &supervisor{watchdog: watchdog}
}

// tell is called by the cold side every tick: if that hangs, the supervisor hears
// nothing.
func (s *supervisor) tell(d *daemon) {
	now := time.Now()
	if s.watchdog > 0 && now.Sub(s.alive) >= s.watchdog/2-tick {
		s.alive = now
		sd.SdNotify(false, sd.SdNotifyWatchdog)
	}
	if now.Sub(s.told) >= statusEvery {
		s.told = now
		sd.SdNotify(false, "STATUS="+d.summary())
	}
}

// summary is what was seen and done, in a few words.
func (d *daemon) summary() string {
	packets := uint64(0)
	for _, c := range d.counters() {
		packets += c.Packets.Load()
	}
	done := fmt.Sprintf("%s printed", many(d.printer.lines, "tracer"))
	if d.sender != nil {
		done = fmt.Sprintf("%s sent", many(d.sender.Counters.Sent, "tracer"))
	}
	return fmt.Sprintf("%s seen, %s", many(packets, "packet"), done)
}
