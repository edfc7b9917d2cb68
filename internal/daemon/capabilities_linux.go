// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities is a set: bit n is number n of capabilities(7).
type capabilities uint32

// Those that may be kept.
const (
	netRaw   capabilities = 1 << unix.CAP_NET_RAW   // to capture on an interface that comes back
	netAdmin capabilities = 1 << unix.CAP_NET_ADMIN // to ask connection tracking, which wants it of each request
)

// errThreads: what is done to one thread would not be done to the others.
var errThreads = errors.New("the program was built with cgo and cannot set the capabilities of its threads: build it with CGO_ENABLED=0")

// prctl sets an attribute of all threads.
func prctl(option, value uintptr) error {
	return onAllThreads("prctl", unix.SYS_PRCTL, option, value)
}

func onAllThreads(name string, trap, a1, a2 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, 0, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errThreads
	}
	return fmt.Errorf("%s: %w", name, errno)
}

// keepCapabilities makes setuid(2) keep the permitted ones.
func keepCapabilities() error { return prctl(unix.PR_SET_KEEPCAPS, 1) }

// limitCapabilities gives up all but those, as far as they are there, for good:
// no program that is started could have more. Those of rest are kept too, but
// rest until withCapability.
func limitCapabilities(keep, rest capabilities) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3, Pid: int32(os.Getpid())}
	var have, data [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	header.Pid = 0
	data[0].Permitted = have[0].Permitted & uint32(keep|rest)
	data[0].Effective = data[0].Permitted & uint32(keep)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&header)
	pin.Pin(&data)
	return errors.Join(
		prctl(unix.PR_SET_NO_NEW_PRIVS, 1),
		onAllThreads("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))))
}

// withCapability calls f on a thread that has a capability for so long, if the
// program has kept it.
func withCapability(c capabilities, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if unix.Capget(&header, &have[0]) == nil && have[0].Effective&uint32(c) == 0 && have[0].Permitted&uint32(c) != 0 {
		more := have
		more[0].Effective |= uint32(c)
		if unix.Capset(&header, &more[0]) == nil {
			defer unix.Capset(&header, &have[0])
		}
	}
	f()
}
