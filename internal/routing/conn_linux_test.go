// SPDX-License-Identifier: BSD-3-Clause

// qemu-user does not pass on netlink of this family as a whole.
//go:build !mips && !mipsle

package routing

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/netns"
)

// router is a namespace with two links, and a Conn there.
func router(t *testing.T) (*netns.Namespace, *Conn) {
	n, peer := netns.New(t), netns.New(t)
	for _, x := range []*netns.Namespace{n, peer} {
		x.Set("ipv6.conf.all.disable_ipv6", "0")
		x.Set("ipv6.conf.default.disable_ipv6", "0")
	}
	n.Veth("lan", peer, "a")
	n.Veth("wan", peer, "b")
	n.IP("addr add 192.168.1.1/24 dev lan")
	n.IP("addr add 203.0.113.2/24 dev wan")
	n.IP("addr add 198.51.100.1 peer 198.51.100.2/32 dev wan")
	n.IP("addr add 2001:db8:1::1/64 dev lan nodad")
	n.IP("route add 10.1.0.0/16 via 192.168.1.7")
	n.IP("route add default via 203.0.113.1")
	n.IP("route add unreachable 2001:db8:1::/56")
	n.IP("route add blackhole 192.0.2.0/25 table 77")
	n.IP("route add 10.9.0.0/16 nexthop via 192.168.1.8 nexthop via 203.0.113.9")
	n.IP("route add default from 2001:db8:1::/56 via fe80::1 dev wan")
	var c *Conn
	if err := n.Do(func() (err error) { c, err = Dial(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return n, c
}

func (c *Conn) list(t *testing.T) (addresses, routes []string) {
	t.Helper()
	err := c.Addresses(func(a *Address) { addresses = append(addresses, fmt.Sprint(a.Prefix, " ", a.Index)) })
	if err != nil {
		t.Fatal(err)
	}
	err = c.Routes(func(r *Route) {
		if r.Kind != Local && r.Kind < 3 || r.Kind > 5 && r.Kind < 9 {
			routes = append(routes, fmt.Sprint(r.Prefix.Masked(), " ", r.Index, " ", r.Table, " ", r.Kind, " ", r.Gateway, " ", r.Source))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	slices.Sort(routes)
	return addresses, routes
}

// TestAddressesAndRoutesAreThoseOfIP compares with what ip(8) reads.
func TestAddressesAndRoutesAreThoseOfIP(t *testing.T) {
	n, c := router(t)
	ip := func(out any, args ...string) {
		t.Helper()
		b, err := exec.Command("ip", append([]string{"-n", n.Name, "-j", "-d", "-N"}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, out); err != nil {
			t.Fatal(err)
		}
	}
	var links []struct {
		Ifindex int
		Ifname  string
		Addr    []struct {
			Local     string
			Prefixlen int
		} `json:"addr_info"`
	}
	ip(&links, "addr")
	var addresses, routes []string
	index := map[string]int{"": 0}
	for _, l := range links {
		index[l.Ifname] = l.Ifindex
		for _, a := range l.Addr {
			addresses = append(addresses, fmt.Sprintf("%s/%d %d", a.Local, a.Prefixlen, l.Ifindex))
		}
	}
	for _, family := range []string{"-4", "-6"} {
		var list []struct {
			Dst, Gateway, Dev, Type, Table, From string
			Nexthops                             []any
		}
		ip(&list, family, "route", "show", "table", "all")
		for _, r := range list {
			kind, ok := map[string]Kind{"1": Unicast, "6": Blackhole, "7": Unreachable, "8": Prohibit}[r.Type]
			if !ok {
				continue
			}
			p, err := netip.ParsePrefix(r.Dst)
			if a, err := netip.ParseAddr(r.Dst); err == nil {
				p = netip.PrefixFrom(a, a.BitLen())
			} else if r.Dst == "default" {
				p = map[string]netip.Prefix{"-4": netip.MustParsePrefix("0.0.0.0/0"), "-6": netip.MustParsePrefix("::/0")}[family]
			} else if err != nil && !p.IsValid() {
				t.Fatalf("%+v", r)
			}
			table := "254"
			if r.Table != "" {
				table = r.Table
			}
			_ = err
			dev := index[r.Dev]
			if r.Nexthops != nil {
				dev = 0
			}
			routes = append(routes, fmt.Sprint(p, " ", dev, " ", table, " ", kind, " ", r.Gateway != "", " ", r.From != ""))
		}
	}
	slices.Sort(addresses)
	slices.Sort(routes)
	gotAddresses, gotRoutes := c.list(t)
	if d := cmp.Diff(addresses, gotAddresses); d != "" || len(addresses) < 5 {
		t.Errorf("addresses (-want +got)\n%s", d)
	}
	if d := cmp.Diff(routes, gotRoutes); d != "" || len(routes) < 8 {
		t.Errorf("routes (-want +got)\n%s", d)
	}
}

func TestLookup(t *testing.T) {
	n, c := router(t)
	index := func(name string) uint32 { return uint32(n.Index(name)) }
	for to, want := range map[string]Route{
		"192.168.1.9":    {Prefix: netip.MustParsePrefix("192.168.1.0/24"), Index: index("lan"), Kind: Unicast},
		"10.1.2.3":       {Prefix: netip.MustParsePrefix("10.1.0.0/16"), Index: index("lan"), Kind: Unicast, Gateway: true},
		"8.8.8.8":        {Prefix: netip.MustParsePrefix("0.0.0.0/0"), Index: index("wan"), Kind: Unicast, Gateway: true},
		"10.9.1.1":       {Prefix: netip.MustParsePrefix("10.9.0.0/16"), Kind: Unicast},
		"2001:db8:1::77": {Prefix: netip.MustParsePrefix("2001:db8:1::/64"), Index: index("lan"), Kind: Unicast},
		"192.168.1.1":    {Prefix: netip.MustParsePrefix("192.168.1.1/32"), Index: index("lan"), Kind: Local},
	} {
		r, err := c.Lookup(netip.MustParseAddr(to))
		r.Table, r.Prefix = 0, r.Prefix.Masked()
		if r.Index == 0 {
			r.Gateway = false // it is in the next hops
		}
		if err != nil || r != want {
			t.Errorf("%s: %+v, %v", to, r, err)
		}
	}
	for _, to := range []string{"2001:db8:1:5::1", "2001:db8:ffff::1"} {
		if r, err := c.Lookup(netip.MustParseAddr(to)); err != ErrNone && r.Kind != Unreachable && !r.Default() {
			t.Errorf("%s: %+v, %v", to, r, err)
		}
	}
}

// TestAcceptsIsTheKernelsSourceValidation: only a source that is reached through the
// interface passes, if the interface is strict.
func TestAcceptsIsTheKernelsSourceValidation(t *testing.T) {
	n, c := router(t)
	n.Set("ipv4.ip_forward", "1")
	for _, strict := range []string{"0", "1"} {
		n.Set("ipv4.conf.all.rp_filter", strict)
		for _, x := range []struct {
			src  string
			want bool
		}{{"203.0.113.77", true}, {"8.8.8.8", true}, {"10.1.2.3", strict == "0"}, {"192.168.1.9", strict == "0"}} {
			got, err := c.Accepts(netip.MustParseAddr(x.src), netip.MustParseAddr("203.0.113.2"), uint32(n.Index("wan")))
			if err != nil || got != x.want {
				t.Errorf("rp_filter %s, from %s: %v, %v", strict, x.src, got, err)
			}
		}
	}
}

// TestChangesAreHeard of addresses, links and those routes that concern one.
func TestChangesAreHeard(t *testing.T) {
	n, c := router(t)
	concern := netip.MustParsePrefix("10.2.0.0/16")
	concerns := func(r *Route) bool { return r.Prefix == concern }
	quiet := func() {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); c.Changed(concerns); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("there is no end of changes")
			}
		}
	}
	for _, x := range []struct {
		do   string
		want bool
	}{
		{"route add 10.3.0.0/16 via 192.168.1.7", false},
		{"route add 10.2.0.0/16 via 192.168.1.7", true},
		{"route del 10.2.0.0/16 via 192.168.1.7", true},
		{"addr add 192.168.2.1/24 dev lan", true},
		{"addr add 2001:db8:2::1/64 dev lan nodad", true},
		{"addr del 2001:db8:2::1/64 dev lan", true},
		{"link set lan down", true},
	} {
		quiet()
		n.IP(x.do)
		got := false
		for end := time.Now().Add(300 * time.Millisecond); !got && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			got = c.Changed(concerns)
		}
		if got != x.want {
			t.Errorf("%s: heard %v", x.do, got)
		}
	}
}
