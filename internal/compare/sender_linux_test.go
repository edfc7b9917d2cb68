// SPDX-License-Identifier: BSD-3-Clause

package compare

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMain makes the test program the sender if it is started so: a process of
// its own, for a namespace and a CPU of its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "send-frames" {
		if err := sendFrames(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// sendFrames sends the first frames of a kind of traffic as fast as it can, and
// prints the nanoseconds that it took and those of CPU time. The ring is small:
// with 32 frames it stays in the CPU's cache and sends 1.5 million a second,
// with 512 it sends 1.25 million, as sendmmsg does; tcpreplay -t -K sends 0.4.
func sendFrames(iface, kind, count string) error {
	const slots, slot, data = 32, 2048, 32 // where a frame begins in its slot: behind tpacket2_hdr
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	t, err := trafficOf(kind)
	if err != nil {
		return err
	}
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	for _, o := range [][2]int{{unix.PACKET_VERSION, unix.TPACKET_V2}, {unix.PACKET_QDISC_BYPASS, 1}} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o[0], o[1]); err != nil {
			return fmt.Errorf("set option %d: %w", o[0], err)
		}
	}
	req := unix.TpacketReq{Block_size: slots * slot, Block_nr: 1, Frame_size: slot, Frame_nr: slots}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
		return fmt.Errorf("make ring: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index}); err != nil {
		return fmt.Errorf("bind to %s: %w", iface, err)
	}
	ring, err := unix.Mmap(fd, 0, slots*slot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	start := time.Now()
	longest := [slots]int{} // the headers that a slot has had
	for i := 0; i < n; {
		for j := range min(slots, n-i) {
			b := ring[j*slot : (j+1)*slot]
			header := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
			for atomic.LoadUint32(&header.Status) != unix.TP_STATUS_AVAILABLE {
				// On its way still: it is back before long.
			}
			head, size := t.head(i, b[data:data])
			if len(head) < longest[j] {
				clear(b[data+len(head) : data+longest[j]])
			}
			longest[j] = len(head)
			header.Len = uint32(size)
			atomic.StoreUint32(&header.Status, unix.TP_STATUS_SEND_REQUEST)
			i++
		}
		// Raw: the scheduler of Go would see a call that takes long, and cost a
		// quarter of the rate.
		if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), 0, 0, 0, 0, 0); errno != 0 {
			return fmt.Errorf("send: %w", errno)
		}
	}
	took := time.Since(start)
	var cpu unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &cpu); err != nil {
		return err
	}
	fmt.Println(took.Nanoseconds(), cpu.Nano())
	return nil
}
