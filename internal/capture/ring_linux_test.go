// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/netns"
)

var _ gopacket.ZeroCopyPacketDataSource = (*Ring)(nil)

// opened is a ring on an interface of a namespace.
func opened(t testing.TB, n *netns.Namespace, name string, f *Filter) *Ring {
	t.Helper()
	var r *Ring
	if err := n.Do(func() (err error) { r, err = Open(name, f); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// pair is two namespaces with the two ends a and b of a link.
func pair(t testing.TB) (a, b *netns.Namespace) {
	a, b = netns.New(t), netns.New(t)
	a.Veth("a", b, "b")
	return a, b
}

// copied is a frame that is ours.
func copied(f Frame) Frame { f.Data = append([]byte{}, f.Data...); return f }

// take waits for so many frames, and a little for one more.
func take(t testing.TB, r *Ring, n int) (frames []Frame) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	var f Frame
	for {
		for r.Next(&f) {
			frames = append(frames, copied(f))
		}
		if len(frames) >= n && time.Until(end) > 2*retire {
			end = time.Now().Add(2 * retire)
		}
		wait := time.Until(end)
		if wait <= 0 {
			break
		}
		unix.Poll([]unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
	}
	if len(frames) != n {
		t.Fatalf("%d frames, want %d", len(frames), n)
	}
	return frames
}

// numbered is a datagram that bears a number, in a frame of a size.
func numbered(t testing.TB, number uint64, size int) []byte {
	b := frame(t, ether(layers.EthernetTypeIPv4), ip4(udp, "10.0.0.2", "10.0.0.1"), datagram(1000, 2000), gopacket.Payload(make([]byte, size-42)))
	binary.BigEndian.PutUint64(b[42:], number)
	return b
}

func TestALonePacketIsSeenSoon(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	var delays []time.Duration
	for i := range 20 {
		send(numbered(t, uint64(i), 60))
		var f Frame
		for deadline := time.Now().Add(20 * time.Second); !r.Next(&f); {
			if time.Now().After(deadline) {
				t.Fatalf("packet %d is not seen", i)
			}
			unix.Poll([]unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}, 1000)
		}
		delays = append(delays, time.Since(time.Unix(0, f.Nanoseconds())))
		if binary.BigEndian.Uint64(f.Data[42:]) != uint64(i) {
			t.Fatalf("%x is not the packet %d", f.Data, i)
		}
		time.Sleep(90 * time.Millisecond)
	}
	slices.Sort(delays)
	// The median and not the most: the machine may be busy with other things.
	t.Logf("%v to %v, median %v", delays[0], delays[19], delays[10])
	if delays[0] < 0 || delays[10] >= 100*time.Millisecond {
		t.Errorf("seen after %v", delays)
	}
}

func TestOutgoingIsToldFromIncoming(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r := opened(t, a, "a", &Filter{})
	out, in := a.Send("a"), b.Send("b")
	for i := range uint64(10) {
		out(numbered(t, 2*i, 100))
		in(numbered(t, 2*i+1, 100))
	}
	for i, f := range take(t, r, 20) {
		if n := binary.BigEndian.Uint64(f.Data[42:]); n != uint64(i) || f.Outgoing != (n%2 == 0) {
			t.Errorf("packet %d: number %d, outgoing %t", i, n, f.Outgoing)
		}
		if f.Length != 100 || len(f.Data) != 100 || f.Segment != 0 || f.VLAN != 0 || f.Nanosecond/1e6 != uint32(f.Time%1000) || time.Since(time.UnixMilli(f.Time)).Abs() > time.Minute {
			t.Errorf("packet %d: %+v", i, f)
		}
	}
}

func TestWhatAFullRingDropsIsCounted(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	one := numbered(t, 0, 200)
	sent := uint64(0)
	for r.Stats().Dropped < 1000 { // nobody reads
		for range 1000 {
			binary.BigEndian.PutUint64(one[42:], sent)
			send(one)
			sent++
		}
		if sent > 1e6 {
			t.Fatal("the ring is never full")
		}
	}
	arrived := a.Statistic("a", "rx_packets")
	read, last := uint64(0), uint64(0)
	var f Frame
	for end := time.Now().Add(3 * retire); time.Now().Before(end); {
		for r.Next(&f) {
			if n := binary.BigEndian.Uint64(f.Data[42:]); read > 0 && n <= last {
				t.Fatalf("number %d after %d", n, last)
			} else {
				last = n
			}
			read++
		}
	}
	s := r.Stats()
	if s.Packets != read+s.Dropped || s.Packets != arrived || s.Dropped < 1000 || read < 1000 {
		t.Errorf("%d sent, %d arrived, %+v, %d read", sent, arrived, s, read)
	}
	t.Logf("%d sent, %d arrived, %+v, %d read", sent, arrived, s, read)
	if n := r.Full(); n == 0 || n > blocks { // of a slow sender some are retired before
		t.Errorf("%d blocks were full", n)
	}
	send(numbered(t, sent, 200)) // and it goes on
	if got := take(t, r, 1); binary.BigEndian.Uint64(got[0].Data[42:]) != sent {
		t.Errorf("%x", got[0].Data)
	}
	r.Close()
	if after := r.Stats(); after.Packets != s.Packets+1 || after.Dropped != s.Dropped {
		t.Errorf("%+v after it was closed", after)
	}
	r.Close() // twice does no harm
}

// TestNoFrameIsLostOrDoubled over some turns of the ring, sizes mixed.
func TestNoFrameIsLostOrDoubled(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	const packets = 60_000 // of at least 200 bytes in the ring: 6 turns
	frames := [][]byte{}
	for size := 60; size < 300; size += 7 {
		frames = append(frames, numbered(t, 0, size))
	}
	next, bytes := uint64(0), uint64(0)
	read := func() {
		var f Frame
		for r.Next(&f) {
			n := binary.BigEndian.Uint64(f.Data[42:])
			if n != next {
				t.Fatalf("number %d, want %d", n, next)
			}
			if want := len(frames[n%uint64(len(frames))]); int(f.Length) != want || len(f.Data) != min(want, Snap) {
				t.Fatalf("number %d: %d bytes of %d, want %d", n, len(f.Data), f.Length, want)
			}
			next++
			bytes += uint64(f.Length)
		}
	}
	for n := range uint64(packets) {
		one := frames[n%uint64(len(frames))]
		binary.BigEndian.PutUint64(one[42:], n)
		send(one)
		if n%256 == 0 {
			read()
		}
	}
	for end := time.Now().Add(20 * time.Second); next < packets && time.Now().Before(end); time.Sleep(time.Millisecond) {
		read()
	}
	if s := r.Stats(); next != packets || s != (Stats{Packets: packets}) || bytes != a.Statistic("a", "rx_bytes") {
		t.Errorf("%d packets and %d bytes read, %+v", next, bytes, s)
	}
	if r.Full() == 0 {
		t.Error("no block was full")
	}
}

func TestTheFilterIsChangedWhilePacketsCome(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{Thin: 16}), b.Send("b")
	const packets, rounds = 20_000, 6
	one := numbered(t, 0, 60)
	for round := range rounds {
		thin := []uint32{16, 1, 4, 1, 64, 3}[round]
		if err := r.SetFilter(&Filter{Thin: thin}); err != nil {
			t.Fatal(err)
		}
		n, sent := uint64(0), 0
		before, arrived := r.Stats(), a.Statistic("a", "rx_packets")
		count := func() {
			var f Frame
			for r.Next(&f) {
				if got := binary.BigEndian.Uint64(f.Data[42:]); got != uint64(round) {
					t.Fatalf("a packet of round %d in round %d", got, round)
				}
				n++
			}
		}
		binary.BigEndian.PutUint64(one[42:], uint64(round))
		for ; sent < packets; sent++ {
			send(one)
			if sent%1000 == 0 {
				count()
			}
		}
		for end := time.Now().Add(3 * retire); time.Now().Before(end); time.Sleep(time.Millisecond) {
			count()
		}
		if s := r.Stats(); s.Packets-before.Packets != n || s.Dropped != 0 || a.Statistic("a", "rx_packets")-arrived != packets {
			t.Errorf("1 in %d: %d packets read, %+v and before %+v, %d arrived", thin, n, s, before, a.Statistic("a", "rx_packets")-arrived)
		}
		p := Chance(thin)
		// Six standard deviations of the binomial law: once in 500 million.
		mean, variance := packets*p, packets*p*(1-p)
		if d := float64(n) - mean; d*d > 36*variance {
			t.Errorf("1 in %d: %d of %d packets", thin, n, packets)
		}
		t.Logf("1 in %d: %d of %d packets, mean %.0f", thin, n, packets, mean)
	}
}

func TestWhatCannotBeCapturedIsSaid(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, _ := pair(t)
	device := tun(t, a, "radio")
	a.IP("link set dev radio down")
	if err := unix.IoctlSetInt(int(device.Fd()), unix.TUNSETLINK, unix.ARPHRD_IEEE80211); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"nosuch": "no such interface", "a-name-that-is-too-long": "no such interface", "": "no such interface", "radio": "the hardware type 801 is not read",
	} {
		err := a.Do(func() error {
			r, err := Open(name, &Filter{})
			if err == nil {
				r.Close()
			}
			return err
		})
		if err == nil || err.Error() != "capture on "+name+": "+want || errors.Is(err, ErrNoInterface) != (name != "radio") {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

// TestWithoutPrivilegeNothingIsCaptured runs itself as nobody.
func TestWithoutPrivilegeNothingIsCaptured(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	if os.Getenv("CAPTURE_AS_NOBODY") != "" {
		_, err := Open("lo", &Filter{})
		fmt.Println("error:", err, errors.Is(err, os.ErrPermission))
		return
	}
	netns.New(t) // skips unless root
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(self) // its directory may be closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run", "^TestWithoutPrivilegeNothingIsCaptured$")
	cmd.ExtraFiles = []*os.File{program}
	cmd.Env, cmd.Dir = append(os.Environ(), "CAPTURE_AS_NOBODY=1"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "error: capture on lo: operation not permitted: it takes root or CAP_NET_RAW true") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAsASourceOfGopacket(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	for i := range uint64(100) {
		send(numbered(t, i, 60+int(i)))
	}
	send(frame(t, ether(layers.EthernetTypeARP), payload)) // is dropped
	source := r
	for i := range uint64(100) {
		data, info, err := source.ZeroCopyReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		want := numbered(t, i, 60+int(i))
		if diff := cmp.Diff(want[:min(len(want), Snap)], data); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		f, ok := info.AncillaryData[0].(*Frame)
		if info.Length != len(want) || info.CaptureLength != len(data) || info.InterfaceIndex != r.Index() || !ok || f.Time != info.Timestamp.UnixMilli() || time.Since(info.Timestamp).Abs() > time.Minute {
			t.Errorf("%+v", info)
		}
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.NoCopy)
		if u, ok := p.TransportLayer().(*layers.UDP); !ok || u.DstPort != 2000 {
			t.Errorf("%v", p)
		}
	}
	time.AfterFunc(50*time.Millisecond, r.Interrupt)
	if _, _, err := r.ZeroCopyReadPacketData(); err != io.EOF {
		t.Errorf("interrupted: %v", err)
	}
}

func TestTheSourceEndsWithItsInterface(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, _ := pair(t)
	r := opened(t, a, "a", &Filter{})
	done := make(chan error, 1)
	go func() {
		_, _, err := r.ZeroCopyReadPacketData()
		done <- err
	}()
	a.IP("link set dev a down")
	time.Sleep(250 * time.Millisecond) // it has seen that
	select {
	case err := <-done:
		t.Fatalf("down: %v", err)
	default:
	}
	a.IP("link del dev a")
	select {
	case err := <-done:
		if err != ErrNoInterface {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
		r.Interrupt()
		<-done
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	if testing.Short() {
		return // an emulated processor has no rings
	}
	a, b := pair(t)
	r, send := opened(t, a, "a", &Filter{}), b.Send("b")
	one := numbered(t, 0, 100)
	for range 4000 {
		send(one)
	}
	var f Frame
	n := 0
	if got := testing.AllocsPerRun(2000, func() {
		if r.Next(&f) {
			n++
		}
	}); got != 0 || n < 2000 {
		t.Errorf("%v allocations a frame of %d", got, n)
	}
	if got := testing.AllocsPerRun(1000, func() { r.ZeroCopyReadPacketData() }); got != 0 {
		t.Errorf("%v allocations a frame for gopacket", got)
	}
}
