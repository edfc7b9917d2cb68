// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/board/control"
	"github.com/overflowd/overflowd/board/machine"
)

// TestRecordsOfTCPAndUDPAreThoseThatTsharkReads has the program read recorded exports of
// softflowd, which is a program of a little-endian machine, and make a tracer of each
// record. The tables beside the recordings are tshark's.
func TestRecordsOfTCPAndUDPAreThoseThatTsharkReads(t *testing.T) {
	each(t, func(t *testing.T, b *machine.Board) {
		m := b.Start(t, options(t, b, "overflowd-mini"))
		m.MountRoot(b)
		for _, name := range []string{"softflowd-v5", "softflowd-v9", "softflowd-ipfix"} {
			export, err := os.ReadFile("../testdata/netflow/" + name + ".pcap")
			if err != nil {
				t.Fatal(err)
			}
			m.Do(control.Request{Write: &control.Write{Path: "/tmp/export", Data: export}})
			var got []string
			for line := range strings.Lines(m.Run("/usr/bin/overflowd", "-f", "/tmp/export", "--rate", "1", "--state", "/etc/overflowd")) {
				var tracer struct {
					Flowdata struct {
						Data struct {
							Saddr, Daddr                           string
							Sport, Dport, Protocol, Pcount, Bcount int
						}
					}
				}
				if err := json.Unmarshal([]byte(line), &tracer); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				if d := tracer.Flowdata.Data; d.Protocol == 6 || d.Protocol == 17 {
					got = append(got, fmt.Sprint(d.Saddr, d.Daddr, d.Sport, d.Dport, d.Protocol, d.Pcount, d.Bcount))
				}
			}
			want := tshark(t, "../testdata/netflow/"+name+".tshark.tsv")
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" || len(want) < 10 {
				t.Errorf("%s: %d records (-tshark +ours):\n%s", name, len(got), diff)
			}
		}
	})
}

// tshark returns the records of TCP and UDP of a table.
func tshark(t *testing.T, path string) (records []string) {
	t.Helper()
	table, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if names == nil {
			names = cells
			continue
		}
		cell := func(name string) string { return cells[slices.Index(names, name)] }
		number := func(name string) (n int) {
			fmt.Sscan(cell(name), &n)
			return n
		}
		if p := number("protocol"); p == 6 || p == 17 {
			records = append(records, fmt.Sprint(cell("srcaddr"), cell("dstaddr"), number("srcport"), number("dstport"), p, number("packets"), number("octets")))
		}
	}
	return records
}
