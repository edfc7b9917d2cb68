// SPDX-License-Identifier: BSD-3-Clause

package routing

import (
	"net"

	"golang.org/x/sys/unix"
)

const sysctls = "/proc/sys/net/ipv4/conf/"

// setting returns that of an interface, a digit; 0 if it cannot be read. It is asked for
// with each tracer: os.ReadFile would leave 1 kB of garbage behind.
func setting(path string) byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var b [1]byte
	if n, err := unix.Read(fd, b[:]); err != nil || n == 0 {
		return 0
	}
	return b[0]
}

// Strict tells whether the kernel takes on an interface only packets of IPv4 whose
// source is reached through it (rp_filter is 1; RFC 3704, section 2.2). The higher
// of two settings counts.
func Strict(name string) bool {
	return max(setting(sysctls+"all/rp_filter"), setting(sysctls+name+"/rp_filter")) == '1'
}

// LocalSources tells whether the kernel may take packets of IPv4 that come in with
// one of its own addresses as their source (accept_local), on any interface.
func LocalSources() bool {
	interfaces, err := net.Interfaces()
	if err != nil || setting(sysctls+"all/accept_local") != '0' {
		return true
	}
	for _, i := range interfaces {
		if setting(sysctls+i.Name+"/accept_local") != '0' {
			return true
		}
	}
	return false
}

// Index returns the number of an interface of that name, if there is one. The net
// package would ask for all interfaces, and leave 70 kB of garbage behind.
func Index(name string) (index uint32, ok bool) {
	q, err := unix.NewIfreq(name)
	if err != nil {
		return 0, false // such a name cannot be
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, q); err != nil {
		return 0, false
	}
	return q.Uint32(), true
}
