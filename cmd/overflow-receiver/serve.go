// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/receiver/report"
	"github.com/overflowd/overflowd/internal/receiver/server"
	"github.com/overflowd/overflowd/internal/receiver/store"
	"github.com/overflowd/overflowd/internal/tracer"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// prefixes reads the values of --to.
func prefixes(texts []string) (all []netip.Prefix, err error) {
	if len(texts) == 0 {
		return nil, usage{errors.New("--to must name an address or a prefix of yours")}
	}
	return prefixesOf("--to", texts)
}

func prefixesOf(option string, texts []string) (all []netip.Prefix, err error) {
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if a, e := netip.ParseAddr(text); e == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, usage{fmt.Errorf("%s %q is not an address or a prefix as 192.0.2.0/24", option, text)}
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// stateDir returns the folder that is named, or the usual one.
func stateDir(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/overflow-receiver", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "overflow-receiver"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", usage{errors.New("--state must name a folder: there is no home folder")}
	}
	return filepath.Join(home, ".local/state/overflow-receiver"), nil
}

func serve(ctx context.Context, args []string, logger *log.Logger) error {
	fs, state := flags("overflow-receiver")
	var to, listen, http, https list
	fs.Var(&to, "to", "")
	fs.Var(&listen, "listen", "")
	fs.Var(&http, "http", "")
	fs.Var(&https, "https", "")
	cert, certKey := fs.String("cert", "", ""), fs.String("key", "", "")
	cpu, size, age, keys := fs.String("cpu", "0.5", ""), fs.String("max-size", "256", ""), fs.String("max-age", "30", ""), fs.String("max-keys", "16384", "")
	receipts := fs.Bool("receipts", false, "")
	var stop, more list
	fs.Var(&stop, "stop", "")
	fs.Var(&more, "more", "")
	web, org, email := fs.String("web", "", ""), fs.String("org", "", ""), fs.String("email", "", "")
	rest, err := parse(fs, args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usage{fmt.Errorf("unexpected argument %q", rest[0])}
	}
	o := server.Options{HTTP: http, HTTPS: https, Web: *web, Version: version, Log: logger, Org: *org, Email: *email}
	o.Receipts = *receipts
	if len(stop) > 0 {
		if o.Stop, err = prefixesOf("--stop", stop); err != nil {
			return err
		}
	}
	if len(more) > 0 {
		if o.More, err = prefixesOf("--more", more); err != nil {
			return err
		}
	}
	if o.To, err = prefixes(to); err != nil {
		return err
	}
	if o.State, err = stateDir(*state); err != nil {
		return err
	}
	if o.Listen, err = addresses(listen); err != nil {
		return err
	}
	if o.CPU, err = strconv.ParseFloat(*cpu, 64); err != nil || !(o.CPU > 0 && o.CPU <= 1024) {
		return usage{fmt.Errorf("--cpu %q is not a share above 0, as 0.5", *cpu)}
	}
	n, err := number("--max-size", *size, 1, 1<<20)
	if err != nil {
		return err
	}
	o.Limits = store.Limits{Size: n << 20, Rate: 600}
	if n, err = number("--max-age", *age, 1, 36500); err != nil {
		return err
	}
	o.Limits.Age = time.Duration(n) * 24 * time.Hour
	if n, err = number("--max-keys", *keys, 8, 1<<22); err != nil {
		return err
	}
	o.Keys = int(n)
	if o.Email != "" {
		by, err := report.NewComplainant(o.Org, o.Email)
		if err != nil {
			return usage{fmt.Errorf("--email %w", err)}
		}
		o.Org = by.Org
	}
	if len(https) > 0 {
		pair, err := tls.LoadX509KeyPair(*cert, *certKey)
		if err != nil {
			return usage{fmt.Errorf("--https needs --cert and --key: %w", err)}
		}
		o.Cert = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	return server.Run(ctx, o)
}

func number(option, text string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, usage{fmt.Errorf("%s %q is not a number from %d to %d", option, text, least, most)}
	}
	return n, nil
}

// addresses reads where to listen; without any, at all addresses of the families
// that there are.
func addresses(texts []string) (all []netip.AddrPort, err error) {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.AddrPortFrom(a, tracer.Port))
			continue
		}
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, usage{fmt.Errorf("--listen %q is not an address, or an address and a port as 192.0.2.1:65535", text)}
		}
		all = append(all, a)
	}
	if len(texts) > 0 {
		return all, nil
	}
	for network, a := range map[string]netip.Addr{"udp4": netip.IPv4Unspecified(), "udp6": netip.IPv6Unspecified()} {
		c, err := net.ListenUDP(network, nil)
		if err != nil {
			continue
		}
		c.Close()
		all = append(all, netip.AddrPortFrom(a, tracer.Port))
	}
	return all, nil
}
