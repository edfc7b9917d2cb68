// SPDX-License-Identifier: BSD-3-Clause

package evidence

// Role of an interface.
type Role uint8

const (
	NoRole Role = iota
	WAN         // towards the Internet
	LAN         // towards the hosts that this router serves
)

var roles = [...]string{"", "wan", "lan"}

// String returns how the command line and the tracer name it.
func (r Role) String() string { return roles[r] }

// ParseRole reads the name of one.
func ParseRole(name string) (r Role, ok bool) {
	switch name {
	case "wan":
		return WAN, true
	case "lan":
		return LAN, true
	}
	return NoRole, false
}
