// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// The lab: an attacker behind a router that translates addresses, and a victim.
//
//	attacker 10.1.0.2 -- 10.1.0.1 eth0 | board | eth1 11.0.0.1 -- 11.0.0.2 victim 91.200.16.2
type lab struct {
	*machine.Machine
	attacker, victim *network
}

const (
	inner, outer, victim = "10.1.0.2", "11.0.0.1", "91.200.16.2"
)

func newLab(t *testing.T, b *machine.Board, o machine.Options) *lab {
	t.Helper()
	l := &lab{attacker: newNetwork(t, "tap0"), victim: newNetwork(t, "tap1")}
	o.Networks = []machine.Network{{Namespace: l.attacker.Namespace, Tap: "tap0"}, {Namespace: l.victim.Namespace, Tap: "tap1"}}
	l.Machine = b.Start(t, o)
	l.attacker.guest, l.victim.guest = l.Machine, l.Machine
	l.MountRoot(b)
	l.Do(control.Request{Link: &control.Link{Name: "eth0", Addresses: []string{"10.1.0.1/24"}}})
	l.Do(control.Request{Link: &control.Link{Name: "eth1", Addresses: []string{outer + "/24"}, Gateways: []string{"11.0.0.2"}}})
	l.attacker.up(inner+"/24", "10.1.0.1")
	l.victim.up("11.0.0.2/24 " + victim + "/32")
	l.Do(control.Request{Masquerade: "eth1"})
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/netfilter/nf_conntrack_acct"} {
		l.Do(control.Request{Write: &control.Write{Path: file, Data: []byte("1"), Mode: 0o644}})
	}
	return l
}

// TestTracersOfAFloodThroughNATNameThePublicAddress, whichever side it is captured on,
// and never the attacker's own one.
func TestTracersOfAFloodThroughNATNameThePublicAddress(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		for name, c := range map[string]struct{ pack, interfaces string }{
			"captured without, by mini": {"overflowd-mini", "config interface\n\tlist device 'eth1'\n\toption role 'wan'\n"},
			"captured within":           {"overflowd", "config interface\n\tlist device 'eth0'\n\toption role 'lan'\n"},
		} {
			t.Run(name, func(t *testing.T) {
				l := newLab(t, b, options(t, b, c.pack))
				d := start(l.Machine, c.interfaces)
				sent := l.attacker.send(inner, victim, 60_000, func() bool { return len(l.victim.to(victim)) > 0 })
				got := l.victim.to(victim)
				if len(got) == 0 {
					t.Fatalf("the victim of %d packets got no tracer: %s", sent, d.Err())
				}
				for _, a := range got {
					check(t, a, victim)
					if f := a.Flow; f.SrcAddr().String() != outer || f.DstAddr().String() != victim || f.DstPort != 5000 || a.Contact.Email == "" {
						t.Errorf("the victim hears of %v:%d, by %+v", f.SrcAddr(), f.SrcPort, a.Contact)
					}
				}
				if n := len(l.attacker.to(inner)); n > 0 {
					t.Errorf("%d tracers to a private address", n)
				}
				if code := d.Stop(unix.SIGTERM); code != 0 {
					t.Errorf("exit %d: %s", code, d.Err())
				}
			})
		}
	})
}
