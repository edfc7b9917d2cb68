// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inBothKinds runs a benchmark for each kind of traffic.
func inBothKinds(b *testing.B, f func(b *testing.B, kind string)) {
	for _, kind := range []string{"mixed", "flood"} {
		b.Run(kind, func(b *testing.B) {
			f(b, kind)
			b.ReportMetric(0, "ns/op")
		})
	}
}

// least keeps the least cost of a program with any of its options.
func least[T int | float64 | time.Duration](costs map[string]T, name string, cost T) {
	name, _, _ = strings.Cut(name, "-")
	if was, ok := costs[name]; !ok || cost < was {
		costs[name] = cost
	}
}

// BenchmarkCapture sends 3 million packets as fast as one CPU can, and compares
// what the programs see of them, and the CPU time of their processes for each
// packet that they see. fprobe knows no IPv6: its share is that of IPv4.
func BenchmarkCapture(b *testing.B) {
	inBothKinds(b, func(b *testing.B, kind string) {
		const n, rounds = 3_000_000, 2
		all, w := captors(b), newWire(b)
		t, err := trafficOf(kind)
		if err != nil {
			b.Fatal(err)
		}
		cost, share := map[string]float64{}, map[string]float64{}
		none := w.send(kind, n)
		slowest := n / none.took.Seconds() / 1e6
		for b.Loop() {
			for range rounds {
				for _, c := range all {
					dir := b.TempDir()
					r := w.start(c, dir)
					before := r.cpu(b)
					l := w.send(kind, n)
					spent := r.settle(b) - before
					seen := c.seen(b, r, dir)
					if l.arrived != n {
						b.Errorf("%d of %d packets arrived", l.arrived, n)
					}
					visible := n
					if c.ipv4 {
						visible = t.ipv4(n)
					}
					rate := n / l.took.Seconds() / 1e6
					s, ns := float64(seen)/float64(visible), float64(spent.Nanoseconds())/float64(max(seen, 1))
					b.Logf("%s: %.4f seen at %.2f Mpps, %.0f ns for each", c.name, s, rate, ns)
					slowest = min(slowest, rate)
					share[c.name] = max(share[c.name], s)
					least(cost, c.name, ns)
				}
			}
		}
		b.ReportMetric(n/none.took.Seconds()/1e6, "Mpps-uncaptured")
		b.ReportMetric(slowest, "Mpps-least")
		for name, s := range share {
			b.ReportMetric(s, name+"-seen")
		}
		for name, ns := range cost {
			b.ReportMetric(ns, name+"-ns/packet")
			if name != "overflowd" {
				b.ReportMetric(ns/cost["overflowd"], name+"/overflowd")
			}
		}
		if share["overflowd"] < 0.999 {
			b.Errorf("overflowd saw %.4f of the packets", share["overflowd"])
		}
		for name, bar := range map[string]float64{"softflowd": 5, "nfpcapd": 3} {
			if times := cost[name] / cost["overflowd"]; times < bar {
				b.Errorf("a packet costs %s %.1f times what it costs overflowd, the bar is %.0f", name, times, bar)
			}
		}
	})
}

// BenchmarkCaptureFile compares what 4 million packets cost that come from a
// file, with 128 bytes of each. fprobe reads no files.
func BenchmarkCaptureFile(b *testing.B) {
	inBothKinds(b, func(b *testing.B, kind string) {
		const n, rounds = 4_000_000, 2
		all := captors(b)
		t, err := trafficOf(kind)
		if err != nil {
			b.Fatal(err)
		}
		file := filepath.Join(b.TempDir(), "frames.pcap")
		if err := writePcap(file, t, n, 128); err != nil {
			b.Fatal(err)
		}
		cost := map[string]time.Duration{}
		for b.Loop() {
			for range rounds {
				for _, c := range all {
					if c.file == nil {
						continue
					}
					dir := b.TempDir()
					args := c.file(file, dir)
					cmd := exec.Command(args[0], args[1:]...)
					out, err := cmd.CombinedOutput()
					if err != nil {
						b.Fatalf("%v: %v: %s", args, err, out)
					}
					r := &running{said: new(strings.Builder), ended: true}
					r.said.Write(out)
					if seen := c.seen(b, r, dir); seen != n {
						b.Errorf("%s read %d packets of %d", c.name, seen, n)
					}
					spent := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
					b.Logf("%s: %d ns a packet", c.name, spent.Nanoseconds()/n)
					least(cost, c.name, spent)
				}
			}
		}
		for name, spent := range cost {
			b.ReportMetric(float64(spent.Nanoseconds())/n, name+"-ns/packet")
			if name != "overflowd" {
				b.ReportMetric(float64(cost["overflowd"])/float64(spent), "overflowd/"+name)
			}
		}
		if part := float64(cost["overflowd"]) / float64(cost["softflowd"]); part > 0.15 {
			b.Errorf("a packet of a file costs overflowd %.3f of what it costs softflowd, the bar is 0.15", part)
		}
	})
}

// BenchmarkThin compares what capture with --thin 1000 costs the whole machine
// with what full capture costs it: the CPU time of the sender, in whose context
// the kernel delivers each packet to the ring or to the filter before it, and
// that of the program; less what the same packets cost when nobody captures. (A
// kernel with IRQ_TIME_ACCOUNTING keeps the delivery from the sender's time:
// there the figures mean nothing.)
func BenchmarkThin(b *testing.B) {
	inBothKinds(b, func(b *testing.B, kind string) {
		const n, rounds = 3_000_000, 4
		overflowd, w := captors(b)[0], newWire(b)
		program := overflowd.args("", "")[0]
		cost := map[string]time.Duration{}
		for b.Loop() {
			for range rounds {
				least(cost, "none", w.send(kind, n).cpu)
				for name, c := range map[string]captor{"full": overflowd, "thin": overflowdWith(program, "--thin", "1000")} {
					r := w.start(c, b.TempDir())
					before := r.cpu(b)
					l := w.send(kind, n)
					spent := l.cpu + r.settle(b) - before
					seen := c.seen(b, r, "")
					b.Logf("%s: %d ns a packet, %d of them the sender's; %d seen", name, spent.Nanoseconds()/n, l.cpu.Nanoseconds()/n, seen)
					// Of 3000 that it captures, six times the deviation.
					if seen < n*89/100 || seen > n*111/100 {
						b.Errorf("%s: %d packets for %d", name, seen, n)
					}
					least(cost, name, spent)
				}
			}
		}
		for name, spent := range cost {
			b.ReportMetric(float64(spent.Nanoseconds())/n, name+"-ns/packet")
		}
		part := float64(cost["thin"]-cost["none"]) / float64(cost["full"]-cost["none"])
		b.ReportMetric(part, "thin/full")
		if part > 0.35 || cost["full"] <= cost["none"] {
			b.Errorf("thinned capture costs %.3f of the full one, the bar is 0.35", part)
		}
	})
}
