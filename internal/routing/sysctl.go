// SPDX-License-Identifier: BSD-3-Clause

package routing

import (
	"net"
	"os"
)

const sysctls = "/proc/sys/net/ipv4/conf/"

// setting returns that of an interface, a digit; 0 if it cannot be read.
func setting(path string) byte {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
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
