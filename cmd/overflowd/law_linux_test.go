// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/tracer"
)

// lawful is how many packets the law is tried with: 50 million, or what
// OVERFLOWD_LAW says.
func lawful(t *testing.T) int {
	n := 50_000_000
	if testing.Short() {
		n = 2_000_000
	}
	if text := os.Getenv("OVERFLOWD_LAW"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1_000_000 {
			t.Fatalf("OVERFLOWD_LAW %q is not a number from 1000000", text)
		}
	}
	return n
}

// selection is what the printed tracers tell of the packets that were selected.
type selection struct {
	packets uint64
	second  [seconds]uint64
	class   map[uint16]uint64
	// heavy is how many packets the flow of many had at the last of its tracers.
	heavy uint64
}

// seconds is how long the traffic of the law takes by its own clock.
const seconds = 100

var lineOf = regexp.MustCompile(`^{"flowdata":{"sourcetype":{"type":"Capture"},"data":{"saddr":"[0-9.]+","daddr":"91\.200\.16\.2","sport":\d+,"dport":(\d+),` +
	`"protocol":6,"tos":0,"flags":2,"pcount":(\d+),"bcount":\d+,"stime":\d+,"etime":(\d+),"ttl":57}},.*"sampling":{"rate":0.001,"selected":(\d+),`)

// read reads the lines of tracers. To verify each of them takes longer than all
// else: that is done with one in some hundreds, with which the others are alike.
func (s *selection) read(r io.Reader) error {
	s.class = map[uint16]uint64{}
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		m := lineOf.FindSubmatch(lines.Bytes())
		if m == nil {
			return fmt.Errorf("not what was expected: %s", lines.Text())
		}
		var x [4]uint64 // port, packets, end, selected
		for i := range x {
			x[i], _ = strconv.ParseUint(string(m[i+1]), 10, 64)
		}
		if x[2]-began >= seconds {
			return fmt.Errorf("it ends outside the capture: %s", lines.Text())
		}
		s.packets += x[3]
		s.second[x[2]-began] += x[3]
		s.class[uint16(x[0])] += x[3]
		if x[0] == heavyPort {
			s.heavy = x[1]
		}
		if n%300 == 0 {
			signed, err := tracer.ParseLine(lines.Bytes())
			if err != nil {
				return err
			}
			got, err := signed.Open()
			if err != nil {
				return err
			}
			if f := &got.Flow; f.Source.Protocol != flow.Capture || uint64(f.DstPort) != x[0] || f.Packets != x[1] || uint64(f.End)/1000 != x[2] || got.Selected != x[3] {
				return fmt.Errorf("the tracer of %s says %s", lines.Text(), signed.Message)
			}
		}
	}
	return lines.Err()
}

// TestTheLawOverManyPackets: each packet has the same chance, whatever flow it is
// of, and independently of the others, although a flood takes nearly all of the
// flow table all the time.
func TestTheLawOverManyPackets(t *testing.T) {
	const rate = 0.001
	x := newTraffic(5000, threeClasses())
	blocks := lawful(t) / x.frames / seconds * seconds
	total := blocks * x.frames

	cmd := exec.Command(buildRelease(t), "-f", "-", "-r", "1/1000", "--state", t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // until all is written, or the program ends
		defer stdin.Close()
		stdin.Write(captureHeader())
		for n := range blocks {
			if _, err := stdin.Write(x.block(uint32(n * seconds / blocks))); err != nil {
				return
			}
		}
	}()
	var s selection
	if err := s.read(stdout); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}

	m := regexp.MustCompile(`-: (\d+) packets, (\d+) bytes, \d+ flows; (\d+) packets selected\n.*-: (\d+) flows made room`).FindStringSubmatch(stderr.String())
	if m == nil {
		t.Fatalf("it says %s", stderr.String())
	}
	if m[1] != strconv.Itoa(total) || m[2] != strconv.Itoa(40*total) || m[3] != strconv.FormatUint(s.packets, 10) {
		t.Errorf("of %d packets, with %d selected in the lines, it says %s", total, s.packets, stderr.String())
	}
	if evicted, _ := strconv.Atoi(m[4]); evicted < total*45/100 {
		t.Errorf("%d flows made room for others: it was no flood", evicted)
	}

	// The number: 4.5 standard deviations are a chance of 7e-6.
	want := rate * float64(total)
	sigma := math.Sqrt(want * (1 - rate))
	off := (float64(s.packets) - want) / sigma
	t.Logf("%d of %d packets selected, %+.2f sigma", s.packets, total, off)
	if math.Abs(off) > 4.5 {
		t.Errorf("%d selected, want %.0f ± %.0f", s.packets, want, sigma)
	}

	// By time: with too much order, as of each 1,000th, the sum of squares is too
	// small. The bounds are the quantiles of 3e-6 of chi-square, 100 degrees.
	squares := 0.0
	for _, n := range s.second {
		d := float64(n) - want/seconds
		squares += d * d / (want / seconds * (1 - rate))
	}
	t.Logf("by time: chi-square %.1f of %d degrees", squares, seconds)
	if squares < 48 || squares > 178 {
		t.Errorf("the numbers over time: chi-square %.1f of %d degrees: %v", squares, seconds, s.second)
	}

	// By class. The bound is the quantile of 7e-6, 3 degrees.
	squares = 0
	for port, share := range map[uint16]float64{heavyPort: 0.3, otherPort: 0.2, floodPort: 0.5} {
		d := float64(s.class[port]) - share*want
		squares += d * d / (share * want * (1 - rate))
	}
	t.Logf("by class: chi-square %.1f of 3 degrees", squares)
	if squares > 26.7 {
		t.Errorf("the numbers by class: chi-square %.1f of 3 degrees: %v", squares, s.class)
	}

	// The last tracer of the flow of many packets lies some 3,000 before the end.
	if all := uint64(total * 3 / 10); s.heavy > all || s.heavy+100_000*3/10 < all {
		t.Errorf("the flow of %d packets has %d: the flood pushed it out of the table", all, s.heavy)
	}
	if t.Failed() || strings.Contains(stderr.String(), "lost") {
		t.Errorf("it says %s", stderr.String())
	}
}
