// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/tracer"
)

// receiving is the configuration of a router that takes tracers.
const receiving = "config overflowd 'general'\n\toption receive '1'\n\n" + capturing

// The flash that the ledger may take in a day, written twice.
const mostOfLedger = 64 << 10

// TestLedgerOutlivesAPowerCutAtEveryWrite has a router receive tracers of some keys, and
// of some more when half a day went by, each of which writes the ledger. Whatever write
// was the last, it knows the keys of the ledger that was written before, or of that one.
func TestLedgerOutlivesAPowerCutAtEveryWrite(t *testing.T) {
	const some = 4
	eachNOR(t, func(t *testing.T, b *machine.Board) {
		o := options(t, b, "overflowd")
		used(t, b, o)
		base, err := os.ReadFile(o.Flash)
		if err != nil {
			t.Fatal(err)
		}
		logged := logFlash(t, &o)
		m, n := newRouter(t, b, o)
		now := time.Now()
		m.Do(control.Request{Clock: now.Unix()})
		d := start(m, receiving)
		since := time.Now()
		n.tell(some)
		before := logged()
		pause(time.Minute - time.Since(since)) // the daemon does not write before
		written := func() int {
			was := -1
			m.Until("the ledger is written", func() bool {
				time.Sleep(2 * time.Second)
				is := logged()
				done := is > before && is == was
				was = is
				return done
			})
			return was
		}
		made := written()
		n.tell(2 * some)
		if logged() != made {
			t.Error("the ledger is written before half a day went by")
		}
		before, first := made, before
		m.Do(control.Request{Clock: now.Add(13 * time.Hour).Unix()})
		replaced := written()
		if code := d.Stop(unix.SIGTERM); code != 0 {
			t.Errorf("exit %d: %s", code, d.Err())
		}
		if logged() != replaced {
			t.Error("the ledger is written again at the end")
		}
		m.Cut()

		cuts := replay(t, o.FlashLog, base, first, replaced)
		sum := 0
		for _, c := range cuts {
			sum += c.changed
		}
		t.Logf("%s: %d bytes of flash in %d writes for a ledger, twice", b.Name, sum, replaced-first)
		if made == first || replaced == made || sum > mostOfLedger {
			t.Errorf("more than the %d bytes of flash that are allowed in a day, or none", mostOfLedger)
		}
		for _, c := range cuts {
			t.Run(fmt.Sprintf("cut after write %d of %d", c.after-first, replaced-first), func(t *testing.T) {
				t.Parallel()
				defer turn(t)()
				m := b.Start(t, c.options(t, o))
				m.MountRoot(b)
				m.Do(control.Request{Link: &control.Link{Name: "eth0", Dummy: true, Addresses: []string{router4 + "/24"}}})
				d := start(m, receiving)
				got := known(t, m)
				switch {
				case got == 0 && c.after < made:
				case got == some && c.after < replaced:
				case got == 2*some && c.after >= made:
				default:
					t.Errorf("%d keys are known", got)
				}
				if code := d.Stop(unix.SIGTERM); code != 0 || strings.Contains(d.Err(), "ledger") {
					t.Errorf("exit %d: %s", code, d.Err())
				}
				m.Cut()
			})
		}
	})
}

// known returns how many keys the ledger has.
func known(t testing.TB, m *machine.Machine) int {
	t.Helper()
	var status struct {
		Receiving struct {
			Standing int `json:"keys_with_standing"`
			New      int `json:"keys_new"`
		}
	}
	if err := json.Unmarshal([]byte(m.Run("/usr/bin/overflowd", "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	return status.Receiving.Standing + status.Receiving.New
}

// tell sends the router a tracer of each of so many keys, until it knows them: a slow
// processor verifies few of strangers a second.
func (n *network) tell(keys int) {
	n.t.Helper()
	var c *net.UDPConn
	err := n.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(router4), tracer.Port)))
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(time.Minute); known(n.t, n.guest) != keys; {
		if time.Now().After(deadline) {
			n.t.Fatalf("%d keys are known, not %d: %s", known(n.t, n.guest), keys, n.guest.Run("/usr/bin/overflowd", "status", "--json"))
		}
		for i := range keys {
			r := &tracer.Tracer{Time: time.Now().UnixMilli(), Rate: 1e-6, Selected: 1, To: netip.MustParseAddr(router4), Seq: 1,
				Contact: tracer.Contact{Email: "abuse@example.net"}}
			r.Flow.Family, r.Flow.Protocol, r.Flow.SrcPort, r.Flow.DstPort = flow.IPv4, 17, 53, 80
			r.Flow.Src, r.Flow.Dst = [16]byte{91, 200, 16, 2}, [16]byte{45, 83, 0, 1}
			r.Flow.Known = flow.HasPorts | flow.HasPackets | flow.HasBytes
			r.Flow.Packets, r.Flow.Bytes = 1000, 100_000
			binary.BigEndian.PutUint64(r.Nonce[:], uint64(time.Now().UnixNano()))
			signed := tracer.Sign(ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%032d", i))), r.AppendMessage(nil))
			if _, err := c.Write(signed.AppendDatagram(nil)); err != nil {
				n.t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
	}
}
