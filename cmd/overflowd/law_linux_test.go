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
	second  [lawSeconds]uint64
	class   map[uint16]uint64
	// heavy is how many packets the flow of many had at the last of its tracers.
	heavy uint64
}

// lawRate is the chance of a packet.
const lawRate = 0.001

// lawSeconds is how long the traffic of the law takes by its own clock.
const lawSeconds = 100

// number returns a member of a line; those that are signed come first.
func number(line []byte, name string) (n uint64, ok bool) {
	_, line, ok = bytes.Cut(line, []byte(`"`+name+`":`))
	digits := bytes.IndexAny(line, ",}")
	if !ok || digits < 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(line[:digits]), 10, 64)
	return n, err == nil
}

// read reads the lines of tracers. To verify each of them takes longer than all
// else: that is done with one in some hundreds, with which the others are alike.
func (s *selection) read(r io.Reader) error {
	s.class = map[uint16]uint64{}
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		var x [4]uint64
		for i, name := range []string{"dport", "pcount", "etime", "selected"} {
			var ok bool
			if x[i], ok = number(lines.Bytes(), name); !ok {
				return fmt.Errorf("no %s: %s", name, lines.Text())
			}
		}
		if x[2]-began >= lawSeconds {
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
			if f := &got.Flow; f.Source.Protocol != flow.Capture || f.TTL != 57 || got.Rate != lawRate || uint64(f.DstPort) != x[0] || f.Packets != x[1] || uint64(f.End)/1000 != x[2] || got.Selected != x[3] {
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
	x := newTraffic(5000, threeClasses())
	blocks := lawful(t) / x.frames / lawSeconds * lawSeconds
	total := blocks * x.frames

	cmd := exec.Command(buildRelease(t), "-f", "-", "-r", "1/1000", "--boost", "off", "--state", t.TempDir())
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
			if _, err := stdin.Write(x.block(uint32(n * lawSeconds / blocks))); err != nil {
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
	want := lawRate * float64(total)
	sigma := math.Sqrt(want * (1 - lawRate))
	off := (float64(s.packets) - want) / sigma
	t.Logf("%d of %d packets selected, %+.2f sigma", s.packets, total, off)
	if math.Abs(off) > 4.5 {
		t.Errorf("%d selected, want %.0f ± %.0f", s.packets, want, sigma)
	}

	// By time: with too much order, as of each 1,000th, the sum of squares is too
	// small. The bounds are the quantiles of 3e-6 of chi-square, 100 degrees.
	squares := 0.0
	for _, n := range s.second {
		d := float64(n) - want/lawSeconds
		squares += d * d / (want / lawSeconds * (1 - lawRate))
	}
	t.Logf("by time: chi-square %.1f of %d degrees", squares, lawSeconds)
	if squares < 48 || squares > 178 {
		t.Errorf("the numbers over time: chi-square %.1f of %d degrees: %v", squares, lawSeconds, s.second)
	}

	// By class. The bound is the quantile of 7e-6, 3 degrees.
	squares = 0
	for port, share := range map[uint16]float64{heavyPort: 0.3, otherPort: 0.2, floodPort: 0.5} {
		d := float64(s.class[port]) - share*want
		squares += d * d / (share * want * (1 - lawRate))
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
