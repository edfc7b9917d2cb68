// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exportV5 is a full datagram of NetFlow v5: 30 records.
func exportV5() []byte {
	export := make([]byte, 24+30*48)
	export[1], export[3] = 5, 30
	for i := range 30 {
		r := export[24+48*i:]
		copy(r, []byte{45, 83, 0, byte(i), 91, 200, 16, 2})
		binary.BigEndian.PutUint32(r[16:], 36)
		binary.BigEndian.PutUint32(r[20:], 26000)
	}
	return export
}

// exportTemplates is a datagram of v9 or IPFIX with the template of a usual
// router, 21 fields in 58 bytes, and 22 records.
func exportTemplates(version uint16) []byte {
	fields := [][2]uint16{
		{8, 4}, {12, 4}, {15, 4}, {10, 4}, {14, 4}, {2, 4}, {1, 4}, {22, 4}, {21, 4}, {7, 2}, {11, 2},
		{6, 1}, {4, 1}, {5, 1}, {60, 1}, {16, 4}, {17, 4}, {9, 1}, {13, 1}, {61, 1}, {48, 1},
	}
	be := binary.BigEndian
	b := make([]byte, 20)
	be.PutUint32(b[8:], 1_790_000_000)
	if version == 10 {
		b = b[:16]
		be.PutUint32(b[4:], 1_790_000_000)
	}
	be.PutUint16(b, version)
	be.PutUint16(b[2:], 1+22) // of IPFIX it will be the length
	template := be.AppendUint16(be.AppendUint16(nil, 256), uint16(len(fields)))
	var record []byte
	for _, f := range fields {
		template = be.AppendUint16(be.AppendUint16(template, f[0]), f[1])
		record = append(record, make([]byte, f[1]-1)...)
		record = append(record, 36)
	}
	id := uint16(0)
	if version == 10 {
		id = 2
	}
	b = be.AppendUint16(be.AppendUint16(b, id), uint16(4+len(template)))
	b = append(b, template...)
	b = be.AppendUint16(be.AppendUint16(b, 256), uint16(4+22*len(record)))
	for range 22 {
		b = append(b, record...)
	}
	if version == 10 {
		be.PutUint16(b[2:], uint16(len(b)))
	}
	return b
}

// exportSFlow is a datagram of 7 samples of 128 bytes.
func exportSFlow() []byte {
	words := func(b []byte, n ...uint32) []byte {
		for _, x := range n {
			b = binary.BigEndian.AppendUint32(b, x)
		}
		return b
	}
	b := words(nil, 5, 1, 0xc0000201, 0, 1, 1, 7)
	for i := range uint32(7) {
		b = words(b, 1, 32+8+16+128, i, i, 300, 300*i, 0, 1, 2, 1, 1, 16+128, 1, 1518, 4, 128)
		header := make([]byte, 128)
		copy(header[12:], []byte{8, 0, 0x45, 0, 5, 220, 0, 0, 0, 0, 64, 6, 0, 0, 45, 83, 0, 1, 91, 200, 16, 2})
		b = append(b, header...)
	}
	return b
}

// exportFile writes a capture of n times the datagram, on Ethernet.
func exportFile(t *testing.T, n int, export []byte) string {
	b, frame := captureHeader(), exportFrame(export)
	for range n {
		b = appendFrame(b, frame)
	}
	return captureFile(t, b)
}

func buildRelease(t *testing.T) string { return buildTags(t, "") }

func buildTags(t *testing.T, tags string) string {
	program := filepath.Join(t.TempDir(), "overflowd")
	if out, err := exec.Command("make", "-s", "-C", "../..", "release", "OUT="+program, "TAGS="+tags).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// TestBudgetOfInstructions counts what a flow record, or a packet, costs from the
// file to the selector, as valgrind sees it: a difference of two files, so that
// the start is not in it.
func TestBudgetOfInstructions(t *testing.T) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	program := buildRelease(t)
	list := filepath.Join(t.TempDir(), "suspects")
	if err := os.WriteFile(list, []byte("192.0.2.0/24\n198.51.100.0/24\n2001:db8::/32\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	everything := []string{"--boost", "100", "--suspects", list, "--ifindex", "1:wan"}
	count := func(file string, args ...string) int {
		cmd := exec.Command("valgrind", append([]string{"--tool=lackey", "--basic-counts=yes", program, "-f", file,
			"-r", "0.000000000001", "--seed", "1", "--state", t.TempDir()}, args...)...)
		// Without an instruction that valgrind does not know, and Go's scheduler now and
		// then wants; without the signals by which it interrupts what runs for 10 ms, of
		// which there are more on a busy machine; and with nobody who looks for work.
		cmd.Env = append(os.Environ(), "GODEBUG=cpu.rdtscp=off,asyncpreemptoff=1", "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m := regexp.MustCompile(`guest instrs:\s+([0-9,]+)`).FindSubmatch(out)
		if m == nil {
			t.Fatalf("no count: %s", out)
		}
		n, err := strconv.Atoi(strings.ReplaceAll(string(m[1]), ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// hold measures what each of the units costs by which a file is longer than another,
	// up to five times: what the runtime does by the clock makes a count larger, never
	// smaller, and does more of it on a busy machine.
	hold := func(name string, units int, bar float64, few, many string) {
		least := [4]int{math.MaxInt, math.MaxInt, math.MaxInt, math.MaxInt}
		var off, on float64
		for range 5 {
			for i, file := range []string{few, many, few, many} {
				args := everything
				if i < 2 {
					args = []string{"--boost", "off"}
				}
				least[i] = min(least[i], count(file, args...))
			}
			off, on = float64(least[1]-least[0])/float64(units), float64(least[3]-least[2])/float64(units)
			t.Logf("%s: %.1f instructions each, %.1f with all of suspicion", name, off, on)
			if off >= 20 && off <= bar && on > off && on <= 1.5*off {
				return
			}
		}
		t.Errorf("%s: %.1f instructions each, the bar is %.0f; and %.1f with all of suspicion, the bar is 1.5 times that", name, off, bar, on)
	}
	for _, c := range []struct {
		name    string
		export  []byte
		records int // of it
		bar     float64
	}{
		{"records of NetFlow v5", exportV5(), 30, 180},
		{"records of NetFlow v9", exportTemplates(9), 22, 500},
		{"records of IPFIX", exportTemplates(10), 22, 500},
		{"samples of sFlow", exportSFlow(), 7, 950},
	} {
		const few, many = 4000, 12000
		hold(c.name, (many-few)*c.records, c.bar, exportFile(t, few, c.export), exportFile(t, many, c.export))
	}
	for _, c := range []struct {
		name string
		kind func() (uint16, int)
		bar  float64
	}{
		{"packets of 5,000 flows", mixOf(5000), 455},
		{"packets of a flood", flood, 560},
	} {
		const frames, few, many = 20000, 3, 10 // blocks: the flows are in the table after the few
		x := newTraffic(frames, c.kind)
		hold(c.name, (many-few)*frames, c.bar, x.file(t, few), x.file(t, many))
	}
}

// TestBudgetOfMemory holds the resident sets over a file of 300,000 records to
// their bars on amd64: that of the smallest build, while it selects nothing and once it
// has made a key and signed tracers, which touches 350 kB more of the program; and that
// of the other build.
func TestBudgetOfMemory(t *testing.T) {
	mini := buildTags(t, "mini")
	t.Run("mini", func(t *testing.T) { memoryOfRecords(t, mini, "0.000000000001", 5<<10) })
	t.Run("mini with tracers", func(t *testing.T) { memoryOfRecords(t, mini, "0.00001", 5<<10+512) })
	t.Run("full", func(t *testing.T) { memoryOfRecords(t, buildRelease(t), "0.00001", 9_000_000>>10) })
}

// memoryOfRecords holds the best of three runs to a bar: how many threads the runtime
// starts depends on how busy the machine is.
func memoryOfRecords(t *testing.T, program, rate string, most int) {
	rss := 0
	for range 3 {
		if rss = recordsResident(t, program, rate); rss <= most {
			return
		}
	}
	t.Errorf("%d KiB resident, the bar is %d KiB", rss, most)
}

// recordsResident returns the high-water mark of the resident set, in KiB.
func recordsResident(t *testing.T, program, rate string) int {
	capture, err := os.ReadFile(exportFile(t, 10000, exportV5()))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", "-", "-r", rate, "--state", t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdin.Write(capture); err != nil {
		t.Fatal(err)
	}
	// Not the rusage: it would include this program before it became that one.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no high-water mark: %s", status)
	}
	rss, _ := strconv.Atoi(string(m[1]))
	t.Logf("%d KiB", rss)
	return rss
}

// Reading is the program while it reads a capture that is written to it.
type reading struct {
	t      *testing.T
	cmd    *exec.Cmd
	w      *os.File
	stderr strings.Builder
}

// startReading starts the program with more arguments.
func startReading(t *testing.T, args ...string) *reading {
	p := &reading{t: t, cmd: exec.Command(buildRelease(t), append([]string{"-f", "-", "--state", t.TempDir()}, args...)...)}
	// A collection of garbage is a line that begins with "gc".
	p.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	p.cmd.Stderr = &p.stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin, p.w = r, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	return p
}

func (p *reading) write(b []byte) {
	if _, err := p.w.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// resident returns how many KiB it has once it has read all, without the pages
// of the program's file, which come as they are used.
func (p *reading) resident() int {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n, err := unix.IoctlGetInt(int(p.w.Fd()), unix.TIOCINQ)
		if err != nil || time.Now().After(deadline) {
			p.t.Fatalf("%d bytes unread, %v", n, err)
		}
		if n == 0 {
			break
		}
	}
	time.Sleep(50 * time.Millisecond) // for what was read last
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		p.t.Fatalf("no anonymous memory: %s", status)
	}
	kib, _ := strconv.Atoi(string(m[1]))
	return kib
}

// end returns what it says.
func (p *reading) end() string {
	p.w.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v: %s", err, p.stderr.String())
	}
	return p.stderr.String()
}

// TestBudgetOfMemoryUnderForgedExporters: what a million addresses send, each
// with templates, sampling and data of its own, takes no more memory than the
// same of ten.
func TestBudgetOfMemoryUnderForgedExporters(t *testing.T) {
	datagrams := 1_000_000 // as many addresses
	if n := os.Getenv("OVERFLOWD_FORGED"); n != "" {
		datagrams, _ = strconv.Atoi(n)
	}
	p := startReading(t)
	capture, err := os.ReadFile(exportFile(t, 2, forgedExport()))
	if err != nil {
		t.Fatal(err)
	}
	header := capture[:24]
	packet := capture[24 : 24+(len(capture)-24)/2]
	n := uint32(0)
	batch := func(count int, addresses uint32) (b []byte) {
		for range count {
			n++
			n := n % addresses
			at := len(b)
			b = append(b, packet...)
			frame := b[at+16:]
			binary.BigEndian.PutUint32(frame[14+12:], 10<<24|n) // the exporter
			export := frame[14+20+8:]
			binary.BigEndian.PutUint32(export[16:], n)                  // the observation domain
			binary.BigEndian.PutUint16(export[24:], 256+uint16(n%1000)) // the template
		}
		return b
	}
	p.write(header)
	const few = 100_000
	for range few / 1000 {
		p.write(batch(1000, 10))
	}
	before := p.resident()
	for left := datagrams; left > 0; left -= 1000 {
		p.write(batch(1000, 1_000_000))
	}
	after := p.resident()
	said := p.end()
	t.Logf("%d KiB after ten exporters, %d KiB after %d datagrams of a million: %s", before, after, datagrams, said)
	if !strings.Contains(said, fmt.Sprintf("%d flow export datagrams", datagrams+few)) || !strings.Contains(said, "made room") {
		t.Errorf("they were not read: %s", said)
	}
	if after > before+128 {
		t.Errorf("%d KiB resident after ten exporters, %d KiB after a million", before, after)
	}
}

// TestBudgetOfMemoryUnderAFlood: two million packets, each of another source,
// take no more memory than a tenth of them, and no collection of garbage. That the
// runtime starts a thread meanwhile, as on a busy machine, is no growth: of three
// runs the best counts.
func TestBudgetOfMemoryUnderAFlood(t *testing.T) {
	for range 2 {
		if memoryUnderAFlood(t) <= 64 {
			return
		}
	}
	if grew := memoryUnderAFlood(t); grew > 64 {
		t.Errorf("it grew by %d KiB, three times", grew)
	}
}

// memoryUnderAFlood returns by how many KiB the resident set grows.
func memoryUnderAFlood(t *testing.T) int {
	const frames, few, many = 2000, 100, 1000 // blocks
	p := startReading(t, "-r", "0.000000000001")
	x := newTraffic(frames, flood)
	p.write(captureHeader())
	for range few {
		p.write(x.block(0))
	}
	before := p.resident()
	for range many - few {
		p.write(x.block(0))
	}
	after := p.resident()
	said := p.end()
	collections := len(regexp.MustCompile(`(?m)^gc \d`).FindAllString(said, -1))
	t.Logf("%d KiB after %d sources, %d KiB after %d; %d collections: %s", before, frames*few, after, frames*many, collections, said)
	if !strings.Contains(said, fmt.Sprintf("-: %d packets, %d bytes, %d flows; 0 packets selected", frames*many, 40*frames*many, frames*many)) {
		t.Errorf("they were not read: %s", said)
	}
	if collections > 0 {
		t.Errorf("%d collections of garbage: %s", collections, said)
	}
	return after - before
}

// forgedExport is a datagram of v9 with a template, options with their template,
// and data of a template that never comes.
func forgedExport() []byte {
	be := binary.BigEndian
	b := make([]byte, 20)
	b[1], b[3], b[8] = 9, 4, 0x60
	for _, n := range []uint16{
		0, 4 + 4 + 4*4, 256, 4, 8, 4, 12, 4, 2, 4, 1, 4,
		1, 4 + 6 + 3*4, 300, 4, 8, 1, 4, 48, 4, 34, 4,
		300, 4 + 12, 0, 0, 0, 7, 0, 100,
		999, 4 + 8, 1, 2, 3, 4,
	} {
		b = be.AppendUint16(b, n)
	}
	return b
}
