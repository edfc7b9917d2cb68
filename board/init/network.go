// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/overflowd/overflowd/board/control"
)

func link(l *control.Link) error {
	if l.Dummy {
		if err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: l.Name}}); err != nil {
			return fmt.Errorf("make %s: %w", l.Name, err)
		}
	}
	// Without it an address of IPv6 is not to be used for a second or two.
	os.WriteFile("/proc/sys/net/ipv6/conf/"+l.Name+"/accept_dad", []byte("0"), 0)
	os.WriteFile("/proc/sys/net/ipv6/conf/"+l.Name+"/disable_ipv6", []byte("0"), 0) // OpenWrt's own network leaves it so
	os.WriteFile("/proc/sys/net/ipv6/conf/"+l.Name+"/router_solicitations", []byte("0"), 0)
	i, err := netlink.LinkByName(l.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", l.Name, err)
	}
	if err := netlink.LinkSetUp(i); err != nil {
		return fmt.Errorf("set %s up: %w", l.Name, err)
	}
	for _, a := range l.Addresses {
		address, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(i, address); err != nil {
			return fmt.Errorf("add %s to %s: %w", a, l.Name, err)
		}
	}
	for _, g := range l.Gateways {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: i.Attrs().Index, Gw: net.ParseIP(g)}); err != nil {
			return fmt.Errorf("route by %s: %w", g, err)
		}
	}
	if address, mac, ok := strings.Cut(l.Neighbour, "="); ok {
		hw, err := net.ParseMAC(mac)
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: i.Attrs().Index, IP: net.ParseIP(address), HardwareAddr: hw, State: netlink.NUD_PERMANENT})
	}
	return nil
}

// masquerade is of both families.
func masquerade(name string) error {
	padded := make([]byte, 16)
	copy(padded, name)
	c := &nftables.Conn{}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		t := c.AddTable(&nftables.Table{Family: family, Name: "nat"})
		chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded},
			&expr.Masq{},
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerade: %w", err)
	}
	return nil
}
