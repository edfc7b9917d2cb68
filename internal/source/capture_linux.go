// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// While blocks of a ring are filled faster than they are retired, packets gather
// for a rest before they are read: waking up for each block would cost more than
// reading it. In that time 1.5 million packets a second fill a quarter of a ring.
const restOfRing = 2 * time.Millisecond

// again is how often an interface that is not there is looked for.
const again = 200 * time.Millisecond

// Run captures until ctx is done, and closes the interfaces.
func (c *Capture) Run(ctx context.Context) error {
	// The thread blocks in poll(2), not in Go's poller, which would wake up
	// others; and the time that it takes is its own.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, c.wake.up)
	defer func() {
		stop()
		c.CountOverrun()
		c.Close()
	}()
	fds := make([]unix.PollFd, 1+len(c.taps))
	fds[0] = unix.PollFd{Fd: int32(c.wake.fd), Events: unix.POLLIN}
	var tried, adapted time.Time
	for ctx.Err() == nil {
		full := false
		for _, t := range c.taps {
			if t.ring != nil && c.drain(t) {
				full = true
			}
		}
		wait := -1
		if c.o.Auto {
			if now := time.Now(); now.Sub(adapted) >= time.Second {
				adapted = now
				c.CountOverrun()
				c.adapt(now, threadTime(), c.Counters.Overrun.Load())
			}
			if wait = 1000; full {
				wait = 0
			}
		}
		if full {
			nap(restOfRing)
			if time.Since(tried) < again { // a flood must not hide what becomes of the interfaces
				continue
			}
		}
		for i, t := range c.taps {
			fds[i+1] = unix.PollFd{Fd: -1, Events: unix.POLLIN}
			if t.ring != nil {
				fds[i+1].Fd = int32(t.ring.Fd())
			}
			if t.ring == nil || t.ring.Down() {
				wait = int(again / time.Millisecond)
			}
		}
		if _, err := unix.Poll(fds, wait); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for packets: %w", err)
		}
		for i, t := range c.taps {
			if t.ring != nil && (fds[i+1].Revents&unix.POLLERR != 0 || t.ring.Down()) && t.ring.Gone() {
				c.drain(t) // what came before
				c.close(t)
				tried = time.Time{}
			}
		}
		if now := time.Now(); now.Sub(tried) >= again {
			tried = now
			for _, t := range c.taps {
				if t.ring == nil {
					c.open(t) // the failure is in its state
				}
			}
		}
	}
	return nil
}

// threadTime returns the processor time that this thread has taken.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// wake ends a poll. up may be called by another goroutine, after close too.
type wake struct {
	mu sync.Mutex
	fd int // -1 when closed
}

func newWake() (*wake, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	return &wake{fd: fd}, nil
}

func (w *wake) up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Write(w.fd, []byte{1, 1, 1, 1, 1, 1, 1, 1})
	}
}

func (w *wake) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	unix.Close(w.fd)
	w.fd = -1
}
