// SPDX-License-Identifier: BSD-3-Clause

//go:build openwrt

package board

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// TestOpenWrt boots the initramfs image of the environment's OPENWRT, with its own network
// and firewall, on the board that BOARDS names: the package is installed, configured by
// uci, run by procd, and removed. What the daemon captures on the WAN makes a tracer that
// comes to the host there.
func TestOpenWrt(t *testing.T) {
	if os.Getenv("OPENWRT") == "" {
		t.Fatal("OPENWRT names no image")
	}
	each(t, func(t *testing.T, b *machine.Board) {
		for _, name := range []string{"overflowd-mini", "overflowd"} {
			t.Run(name, func(t *testing.T) {
				wan := newNetwork(t, "tap0")
				m := b.Start(t, machine.Options{Package: name, OwnNetwork: true, Networks: []machine.Network{{Namespace: wan.Namespace, Tap: wan.tap}}})
				wan.guest = m
				wan.up("11.0.0.2/24")
				t.Log(m.Shell("cat /etc/openwrt_release; uname -a; overflowd --version"))
				m.Shell("uci set network.wan.proto=static; uci set network.wan.ipaddr=" + outer +
					"; uci set network.wan.netmask=255.255.255.0; uci set network.wan.gateway=11.0.0.2; uci commit network; /etc/init.d/network reload")
				m.Until("the WAN is up", func() bool { return strings.Contains(m.Shell("ifstatus wan || true"), `"up": true`) })
				if len(m.Serving("overflowd")) > 0 {
					t.Error("the daemon runs before it is enabled")
				}
				m.Shell("uci set overflowd.general.enabled=1; uci set overflowd.general.rate=1/1000; uci -q delete overflowd.general.send; uci add_list overflowd.general.send=udp; " +
					"uci set overflowd.contact.email=abuse@example.net; uci commit overflowd; /etc/init.d/overflowd enable")
				d := serve(m)
				before := d.Memory("VmRSS")
				sent := wan.send("11.0.0.2", outer, 60_000, func() bool { return len(wan.to("11.0.0.2")) > 0 })
				got := wan.to("11.0.0.2")
				if len(got) == 0 {
					t.Fatalf("no tracer of %d packets: %s %s", sent, m.Shell("overflowd status"), d.Err())
				}
				check(t, got[0], "11.0.0.2")
				if a := got[0]; a.Flow.DstAddr().String() != outer || a.Flow.DstPort != 5000 || a.Contact.Email != "abuse@example.net" {
					t.Errorf("the tracer says %+v, by %+v", a.Flow, a.Contact)
				}
				after := d.Memory("VmRSS")
				t.Logf("%s: %d kB resident that captures, %d after %d packets", name, before, after, sent)
				if most := idle[name] + ring; before > most || after > most+flooded {
					t.Errorf("%d kB resident that captures, and %d after the packets; the bars are %d and %d", before, after, most, most+flooded)
				}
				t.Log(m.Shell("overflowd status"))

				keys := shown(t, m)
				if len(keys) != 1 || keys[0] != got[0].key.String() {
					t.Errorf("the keys are %v, and the tracer's is %v", keys, got[0].key)
				}
				m.Shell(fmt.Sprintf("kill -9 %d", d.Pid))
				m.Until("procd starts it again", func() bool { return status(m) != nil })
				d = serve(m)
				if again := shown(t, m); len(again) != 1 || again[0] != keys[0] {
					t.Errorf("the keys are %v after a restart, and were %v", again, keys)
				}
				d.Stop(unix.SIGTERM)
				m.Shell("if command -v apk >/dev/null; then apk del " + name + "; else opkg remove " + name + "; fi")
				m.Shell("[ ! -e /usr/bin/overflowd ]")
				m.Do(control.Request{})
			})
		}
	})
}
