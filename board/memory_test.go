// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// The bars of the memory that is resident when the daemon does nothing, in kB.
var idle = map[string]int{"overflowd-mini": 5 << 10, "overflowd": 9 << 10}

// What may be resident under a flood of distinct flows beyond those bars, in kB. Of what
// it adds to a daemon that saw no packet yet, 616 are the flow table.
const flooded = 1 << 10

// ring is what the kernel and the daemon share to capture, in kB, which is in the
// resident set of who does.
const ring = 2 << 10

// distinct are the flows of the flood of the smallest machine of the first board, and a
// third of it that of the others. FLOOD is for those who have the time for the 2 million of the design.
const distinct = 100_000

// burst is what the ring has room for, however slow the daemon is.
const burst = 10_000

// TestMemoryOfAnIdleAndOfAFloodedDaemon captures on an interface which the kernel's
// pktgen floods with packets that each have other addresses and ports.
func TestMemoryOfAnIdleAndOfAFloodedDaemon(t *testing.T) {
	most := distinct
	if v := os.Getenv("FLOOD"); v != "" {
		if _, err := fmt.Sscan(v, &most); err != nil {
			t.Fatal(err)
		}
	}
	each(t, func(t *testing.T, b *machine.Board) {
		for _, name := range []string{"overflowd-mini", "overflowd"} {
			for _, memory := range []int{64, 128} {
				if (name == "overflowd") != (memory == 128) && b.Name != names()[0] {
					continue // the first board shows each in both, the others in what it is for
				}
				t.Run(fmt.Sprintf("%s in %d MiB", name, memory), func(t *testing.T) {
					flows := most
					if name != "overflowd-mini" || memory != 64 || b.Name != names()[0] {
						flows /= 3
					}
					o := options(t, b, name)
					o.Memory = memory
					m := b.Start(t, o)
					m.MountRoot(b)
					m.Do(control.Request{Link: &control.Link{Name: "eth0", Dummy: true, Addresses: []string{router4 + "/24"}}})
					d := start(m, "config exporter\n\toption prefix '45.83.0.2/32'\n")
					listening := d.Memory("VmRSS")
					if listening > idle[name] {
						t.Errorf("%d kB resident that waits for exporters; the bar is %d", listening, idle[name])
					}
					d.Stop(unix.SIGTERM)
					d = start(m, capturing)
					before, anonymous := d.Memory("VmRSS"), d.Memory("RssAnon")
					seen := 0
					for sent := 0; sent < flows; {
						sent += pktgen(t, m, min(burst, flows-sent))
						m.Until("the daemon has seen all that the ring had room for", func() bool {
							s := status(m)
							if s == nil {
								return false
							}
							was := seen
							seen = s.Captured.Packets
							return seen >= sent || seen > sent/2 && seen == was
						})
					}
					after := d.Memory("VmRSS")
					t.Logf("%s: %s in %d MiB: %d kB resident that waits for exporters, %d (%d anonymous) that captures, %d (%d anonymous, %d of files, %d shared) after %d packets of a flood of %d, at most %d kB",
						b.Name, name, memory, listening, before, anonymous, after, d.Memory("RssAnon"), d.Memory("RssFile"), d.Memory("RssShmem"), seen, flows, d.Memory("VmHWM"))
					if seen < 2*8192 {
						t.Errorf("%d packets of %d are no flood", seen, flows)
					}
					if most := idle[name] + ring; before > most || after > most+flooded {
						t.Errorf("%d kB resident that captures, and %d after the flood; the bars are %d and %d", before, after, most, most+flooded)
					}
					if strings.Contains(m.Console(), "Out of memory") {
						t.Error("the kernel ran out of memory")
					}
					if code := d.Stop(unix.SIGTERM); code != 0 {
						t.Errorf("exit %d: %s", code, d.Err())
					}
				})
			}
		}
	})
}

// pktgen has the kernel receive so many packets on eth0, each of a random flow, and
// returns how many it says were there.
func pktgen(t *testing.T, m *machine.Machine, packets int) (sent int) {
	t.Helper()
	m.Do(control.Request{Module: "pktgen"})
	write := func(file, line string) {
		m.Do(control.Request{Write: &control.Write{Path: "/proc/net/pktgen/" + file, Data: []byte(line + "\n"), Mode: 0o644}})
	}
	write("kpktgend_0", "rem_device_all")
	write("kpktgend_0", "add_device eth0")
	for _, line := range []string{"xmit_mode netif_receive", "burst 1", "clone_skb 0", fmt.Sprintf("count %d", packets), "pkt_size 60", "delay 0",
		"dst_mac " + machine.MAC(0), "src_min 45.83.0.2", "src_max 45.83.255.254", "dst_min 91.200.0.1", "dst_max 91.200.255.254",
		"udp_src_min 1024", "udp_src_max 65000", "udp_dst_min 9", "udp_dst_max 9", "flag IPSRC_RND", "flag IPDST_RND", "flag UDPSRC_RND"} {
		write("eth0", line)
	}
	defer func(was time.Duration) { m.Limit = was }(m.Limit)
	m.Limit += time.Duration(packets) * 2 * time.Millisecond
	write("pgctrl", "start") // until it is done
	result := m.Read("/proc/net/pktgen/eth0")
	if _, after, ok := strings.Cut(result, "pkts-sofar: "); ok {
		fmt.Sscan(after, &sent)
	}
	if sent != packets {
		t.Fatalf("pktgen: %s", result)
	}
	return sent
}
