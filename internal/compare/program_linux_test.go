// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A collector is a program that receives NetFlow on loopback.
type collector struct {
	name string
	args func(dir, port string) []string
}

func collectors(b *testing.B) []collector {
	if _, err := exec.LookPath("nfcapd"); err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	build := func(name, of, pkg string) string {
		program := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-o", program, pkg)
		cmd.Dir, cmd.Env = of, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return program
	}
	overflowd := build("overflowd", "../..", "./cmd/overflowd")
	goflow2 := build("goflow2", ".", "github.com/netsampler/goflow2/v2/cmd/goflow2")
	return []collector{
		{"overflowd", func(dir, port string) []string {
			return []string{overflowd, "-u", port, "--state", dir, "--status", filepath.Join(dir, "status")}
		}},
		{"goflow2", func(dir, port string) []string {
			return []string{goflow2, "-listen", "netflow://127.0.0.1:" + port, "-addr", "127.0.0.1:0", "-templates.path", "", "-transport.file", os.DevNull}
		}},
		{"nfcapd", func(dir, port string) []string {
			return []string{"nfcapd", "-b", "127.0.0.1", "-p", port, "-t", "3600", "-w", dir}
		}},
	}
}

// process is a collector that runs.
type process struct {
	cmd    *exec.Cmd
	stderr strings.Builder
	addr   string
}

func (c *collector) start(b *testing.B) *process {
	probe, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(probe.LocalAddr().String())
	probe.Close()
	args := c.args(b.TempDir(), port)
	p := &process{cmd: exec.Command(args[0], args[1:]...), addr: "127.0.0.1:" + port}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.cmd.Process.Kill() })
	n, _ := strconv.Atoi(port)
	bound := fmt.Sprintf("0100007F:%04X", n)
	for range 200 {
		if sockets, err := os.ReadFile("/proc/net/udp"); err == nil && strings.Contains(string(sockets), bound) {
			time.Sleep(300 * time.Millisecond) // and the rest of its start
			return p
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("%s does not listen: %s", c.name, p.stderr.String())
	return nil
}

// cpu returns the time that the process has spent on all its threads.
func (p *process) cpu(b *testing.B) time.Duration {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	total := time.Duration(0)
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // of a thread that has ended
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(n)
	}
	return total
}

func (p *process) stop() string {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
	return p.stderr.String()
}

// send sends datagrams at a rate a second, in bursts each millisecond.
func send(b *testing.B, addr string, n, rate int, datagram func(i int) []byte) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	for i := 0; i < n; {
		due := int(time.Since(start).Seconds()*float64(rate)) + 1
		for ; i < min(due, n); i++ {
			if _, err := conn.Write(datagram(i)); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(200 * time.Millisecond)
}

// BenchmarkUDP4000 is what 4,000 datagrams of v9 a second cost, 24 records each,
// a template each twentieth, as CPU time for a thousand datagrams; and what the
// same cost from a file. nfcapd reads no capture files.
func BenchmarkUDP4000(b *testing.B) {
	const n, rounds = 12000, 2
	template, data := message(9, true), message(9, false)
	best := map[string]time.Duration{}
	all := collectors(b)
	for b.Loop() {
		for range rounds {
			for i := range all {
				p := all[i].start(b)
				before := p.cpu(b)
				send(b, p.addr, n, 4000, func(i int) []byte {
					if i%20 == 0 {
						return template
					}
					return data
				})
				spent := p.cpu(b) - before
				said := p.stop()
				if was, ok := best[all[i].name]; !ok || spent < was {
					best[all[i].name] = spent
				}
				if want := fmt.Sprintf("%d flow export datagrams, %d records", n, n*19/20*perDatagram); all[i].name == "overflowd" && !strings.Contains(said, want) {
					b.Errorf("overflowd lost some of %s: %s", want, said)
				}
			}
		}
	}
	file := filepath.Join(b.TempDir(), "v9.pcap")
	const inFile = 5 * n // so that the start counts for little
	writeCapture(b, file, inFile, func(i int) []byte {
		if i%20 == 0 {
			return template
		}
		return data
	})
	args := all[0].args(b.TempDir(), "0")
	cmd := exec.Command(args[0], "-f", file, "--state", b.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf("%d records", inFile*19/20*perDatagram)) {
		b.Fatalf("%v: %s", err, out)
	}
	best["file"] = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()) * n / inFile
	b.ReportMetric(float64(best["file"])/float64(best["nfcapd"]), "file/nfcapd")
	for name, spent := range best {
		b.ReportMetric(spent.Seconds()*1e3/(n/1000), name+"-ms/1000")
	}
	b.ReportMetric(float64(best["goflow2"])/float64(best["overflowd"]), "goflow2/overflowd")
	b.ReportMetric(float64(best["nfcapd"])/float64(best["overflowd"]), "nfcapd/overflowd")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkUDP40000 counts what is lost of 40,000 datagrams of v5 a second.
func BenchmarkUDP40000(b *testing.B) {
	const n = 200_000
	d := datagram()
	overflowd := collectors(b)[0]
	received := regexp.MustCompile(`(\d+) flow export datagrams`)
	for b.Loop() {
		p := overflowd.start(b)
		send(b, p.addr, n, 40000, func(int) []byte { return d })
		m := received.FindStringSubmatch(p.stop())
		if m == nil {
			b.Fatal(p.stderr.String())
		}
		got, _ := strconv.Atoi(m[1])
		b.ReportMetric(float64(n-got), "lost")
		b.ReportMetric(0, "ns/op")
	}
}

// writeCapture writes datagrams as a pcap file of raw IPv4.
func writeCapture(b *testing.B, name string, n int, datagram func(i int) []byte) {
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	le, be := binary.LittleEndian, binary.BigEndian
	header := le.AppendUint32(nil, 0xa1b2c3d4)
	header = append(header, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0)
	w.Write(le.AppendUint32(header, 101))
	for i := range n {
		d := datagram(i)
		size := 28 + len(d)
		w.Write(le.AppendUint32(le.AppendUint32(make([]byte, 8), uint32(size)), uint32(size)))
		ip := be.AppendUint16([]byte{0x45, 0}, uint16(size))
		ip = append(ip, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2)
		ip = append(ip, 0x08, 0x07, 0x08, 0x07)
		w.Write(be.AppendUint16(be.AppendUint16(ip, uint16(8+len(d))), 0))
		w.Write(d)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}
