// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheHistoryOfADay(t *testing.T) {
	var h history
	var totals [allSeries]uint64
	series := func() []uint32 {
		b, no := h.appendSeries(nil, seriesSent)
		var s []uint32
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if no != !slices.ContainsFunc(s, func(n uint32) bool { return n != 0 }) {
			t.Errorf("%v is no series: %v", s, no)
		}
		return s
	}
	at := func(since time.Duration, sent uint64) {
		totals[seriesSent] = sent
		h.observe(since, &totals)
	}
	expect := func(want ...uint32) {
		t.Helper()
		if diff := cmp.Diff(want, series()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	at(0, 0)
	expect(0)
	at(interval-1, 3)
	at(interval-1, 3)
	expect(3)
	at(interval, 4)
	at(interval+time.Second, 6)
	expect(3, 3)
	at(4*interval, 7) // it did not run for a while
	expect(3, 3, 0, 0, 1)
	at(5*interval, 7+math.MaxUint32+9)
	at(5*interval, 7+math.MaxUint32+10)
	expect(3, 3, 0, 0, 1, math.MaxUint32)

	day := time.Duration(intervals) * interval
	last := uint64(7 + math.MaxUint32 + 10)
	at(day+interval, last+2) // the first two intervals are forgotten
	want := make([]uint32, intervals)
	want[2], want[3], want[intervals-1] = 1, math.MaxUint32, 2
	expect(want...)
	for i := range 3 * intervals {
		last++
		at(day+time.Duration(i+2)*interval, last+2)
	}
	for i := range want {
		want[i] = 1
	}
	expect(want...)
	at(100*day, last+7)
	clear(want)
	want[intervals-1] = 5
	expect(want...)
}

// TestTheHistoryOfARun asks at the socket for the history, and for the last tracers.
func TestTheHistoryOfARun(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	c, _ := run(t, "--status", socket, "-r", "1")
	ask := func(question string) (answer map[string]any) {
		t.Helper()
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, question)
		if err := json.NewDecoder(conn).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	export := v5()
	for i := range 20 {
		copy(export[24:], []byte{45, 83, 0, byte(i), 91, 200, 16, 2})
		export[24+33], export[24+35], export[24+38] = 80, 53, 17
		send(t, c, "127.0.0.1", export)
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if ask("json\n")["tracers"].(map[string]any)["printed"] == float64(i+1) {
				break
			}
		}
	}
	status := ask("json\n")
	recent := status["recent"].([]any)
	if len(recent) != 16 {
		t.Fatalf("%d recent tracers", len(recent))
	}
	for i := range recent {
		got := recent[i].(map[string]any)
		if made := got["time"].(float64); made > status["time"].(float64) || made < status["time"].(float64)-60 {
			t.Errorf("made at %v", made)
		}
		delete(got, "time")
		want := map[string]any{"saddr": fmt.Sprintf("45.83.0.%d", 19-i), "daddr": "91.200.16.2", "sport": 80.0, "dport": 53.0, "protocol": 17.0,
			"pcount": 7.0, "bcount": 700.0, "selected": 70.0}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d: (-want +got):\n%s", i, diff)
		}
	}
	history := ask("hist\n")
	if end := history["end"].(float64); time.Since(time.Unix(int64(end), 0)).Abs() > time.Minute {
		t.Errorf("the end is %v", end)
	}
	delete(history, "end")
	want := map[string]any{"interval": 300.0, "packets": []any{20 * 70.0}, "selected": []any{20.0}, "printed": []any{20.0}}
	if diff := cmp.Diff(want, history); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
