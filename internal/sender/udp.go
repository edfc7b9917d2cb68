// SPDX-License-Identifier: BSD-3-Clause

package sender

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// UDP delivers to port 65535 of a recipient, with the largest TTL or hop limit
// there is: a receiver reads the distance from what is left of it.
type UDP struct {
	v4, v6 *net.UDPConn
}

// OpenUDP opens the sockets, one a family. A host without one of the families
// is no error; without either it is.
func OpenUDP() (*UDP, error) {
	v4, err4 := openUDP("udp4", syscall.IPPROTO_IP, syscall.IP_TTL)
	v6, err6 := openUDP("udp6", syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS)
	if v4 == nil && v6 == nil {
		return nil, fmt.Errorf("open UDP sockets: %w", errors.Join(err4, err6))
	}
	return &UDP{v4, v6}, nil
}

func openUDP(network string, level, option int) (*net.UDPConn, error) {
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = syscall.SetsockoptInt(int(fd), level, option, 255) })
		err = errors.Join(err, set)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

var errFamily = errors.New("no socket of this address family")

// Send implements Transport.
func (u *UDP) Send(to netip.Addr, datagram []byte) error {
	c := u.v6
	if to.Is4() {
		c = u.v4
	}
	if c == nil {
		return errFamily
	}
	_, err := c.WriteToUDPAddrPort(datagram, netip.AddrPortFrom(to, tracer.Port))
	return err
}

// Receive hands what comes back to the sockets to take, until they are closed. The
// bytes are valid until take returns.
func (u *UDP) Receive(take func(b []byte, from netip.Addr)) {
	var group sync.WaitGroup
	for _, c := range []*net.UDPConn{u.v4, u.v6} {
		if c == nil {
			continue
		}
		group.Go(func() {
			var b [tracer.ReceiptSealSize + 1]byte
			for {
				n, from, err := c.ReadFromUDPAddrPort(b[:])
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					time.Sleep(100 * time.Millisecond)
				} else if n == tracer.ReceiptSize || n == tracer.ReceiptSealSize {
					take(b[:n], from.Addr().Unmap())
				}
			}
		})
	}
	group.Wait()
}

// Close closes the sockets. No UDP has none.
func (u *UDP) Close() error {
	if u == nil {
		return nil
	}
	var errs []error
	for _, c := range []*net.UDPConn{u.v4, u.v6} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
