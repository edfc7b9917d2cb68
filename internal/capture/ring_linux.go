// SPDX-License-Identifier: BSD-3-Clause

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/internal/packet"
)

// The ring has 2 MiB in blocks. The kernel gives us a block when it is full, or
// retire after its first packet: a lone packet is seen within 100 ms.
const (
	blockSize = 128 << 10
	blocks    = 16
	retire    = 60 * time.Millisecond
)

// A Ring captures on one interface. It is not safe for concurrent use, but for
// Stats and Interrupt.
type Ring struct {
	name  string
	index int
	link  packet.LinkType
	// loopback: each packet is seen as it is sent and as it is received.
	loopback bool
	memory   []byte
	block    int    // the one that is ours next
	offset   uint32 // in the block, of the next frame; 0: the block is not ours yet
	left     uint32 // frames in the block
	full     uint64 // blocks that were full
	vnet     bool   // there is a header of virtio before each frame
	down     bool   // the interface was, when Gone looked

	ancillary [1]any
	frame     Frame

	mu    sync.Mutex // guards what follows
	fd    int        // -1 when closed
	stats Stats
	ended bool
}

// ErrNoInterface: there is none of that name now.
var ErrNoInterface = errors.New("no such interface")

// Open starts to capture on an interface, for which one has to be root or to
// have CAP_NET_RAW. From the first packet on the filter holds.
func Open(name string, f *Filter) (r *Ring, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == unix.EPERM {
		return nil, fmt.Errorf("capture on %s: %w: it takes root or CAP_NET_RAW", name, err)
	} else if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	r = &Ring{name: name, fd: fd}
	if err := r.open(f); err != nil {
		r.Close()
		return nil, fmt.Errorf("capture on %s: %w", name, err)
	}
	return r, nil
}

func (r *Ring) open(f *Filter) error {
	var err error
	if r.index, err = indexOf(r.fd, r.name); err != nil {
		return err
	}
	hardware, err := request(r.fd, unix.SIOCGIFHWADDR, r.name)
	if err != nil {
		return err
	}
	var ok bool
	if r.link, ok = linkOf(hardware.Uint16()); !ok {
		return fmt.Errorf("the hardware type %d is not read", hardware.Uint16())
	}
	r.loopback = hardware.Uint16() == unix.ARPHRD_LOOPBACK
	if err := r.SetFilter(f); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("the kernel has no TPACKET_V3: %w", err)
	}
	r.vnet = unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) == nil
	const frameSize = 2048 // means nothing here, but must fit
	err = unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blocks, Frame_size: frameSize, Frame_nr: blockSize / frameSize * blocks,
		Retire_blk_tov: uint32(retire / time.Millisecond),
	})
	if err != nil {
		return fmt.Errorf("make a ring of %d bytes: %w", blocks*blockSize, err)
	}
	if r.memory, err = unix.Mmap(r.fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network byte order
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: r.index}); err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return ErrNoInterface
		}
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// SetFilter puts a filter in the place of the one before, at once.
func (r *Ring) SetFilter(f *Filter) error {
	instructions := f.program(r.link)
	program := unix.SockFprog{Len: uint16(len(instructions)), Filter: (*unix.SockFilter)(unsafe.Pointer(&instructions[0]))}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	return nil
}

// request asks for something of an interface.
func request(fd int, what uint, name string) (*unix.Ifreq, error) {
	q, err := unix.NewIfreq(name)
	if err != nil {
		return nil, ErrNoInterface // such a name cannot be
	}
	if err := unix.IoctlIfreq(fd, what, q); err == unix.ENODEV {
		return nil, ErrNoInterface
	} else if err != nil {
		return nil, err
	}
	return q, nil
}

func indexOf(fd int, name string) (int, error) {
	q, err := request(fd, unix.SIOCGIFINDEX, name)
	if err != nil {
		return 0, err
	}
	return int(q.Uint32()), nil
}

// Close gives the ring back to the kernel.
func (r *Ring) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return
	}
	r.count()
	if r.memory != nil {
		unix.Munmap(r.memory)
		r.memory = nil
	}
	unix.Close(r.fd)
	r.fd = -1
}

// Fd returns the socket, which poll(2) says is readable while there are frames,
// and in error when something became of the interface.
func (r *Ring) Fd() int { return r.fd }

// Index returns the number of the interface.
func (r *Ring) Index() int { return r.index }

// Link says how the frames begin.
func (r *Ring) Link() packet.LinkType { return r.link }

// Full returns how many blocks were filled before their time was over.
func (r *Ring) Full() uint64 { return r.full }

// Gone takes the error of the socket and tells whether the interface is another
// one by now or none. One that is only down comes up again with the ring: see
// Down.
func (r *Ring) Gone() bool {
	unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	// The flags first: if they are those of another one, so is the index.
	flags, err := request(r.fd, unix.SIOCGIFFLAGS, r.name)
	if err != nil {
		return true
	}
	r.down = flags.Uint16()&unix.IFF_UP == 0
	if index, err := indexOf(r.fd, r.name); err != nil || index != r.index {
		return true
	}
	// An interface that was moved to another namespace and back has its number
	// again, but the ring no longer has the interface.
	var at unix.RawSockaddrLinklayer
	size := uint32(unix.SizeofSockaddrLinklayer)
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(r.fd), uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)))
	return errno == 0 && int(at.Ifindex) != r.index
}

// Down tells whether the interface was down when Gone was asked last. Of such a
// one the socket does not say that it is removed, and each one is down before it
// is: Gone has to be asked again from time to time, until it is up.
func (r *Ring) Down() bool { return r.down }

// Stats asks the kernel. It may be called by another goroutine.
func (r *Ring) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count()
	return r.stats
}

func (r *Ring) count() {
	if r.fd < 0 {
		return
	}
	if s, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil { // since the last call
		r.stats.Packets += uint64(s.Packets)
		r.stats.Dropped += uint64(s.Drops)
	}
}

// Next returns the next frame if there is one now.
func (r *Ring) Next(f *Frame) bool {
	for {
		for r.left > 0 {
			r.left--
			if r.read(f) {
				return true
			}
		}
		if !r.advance() {
			return false
		}
	}
}

// advance gives the block at hand back to the kernel, and takes the next one.
func (r *Ring) advance() bool {
	header := r.header()
	// Loads and stores of the atomic package order all other ones, as the kernel
	// does on its side: a block is read only once it is ours, and is no longer
	// read when it is the kernel's.
	if r.offset != 0 {
		atomic.StoreUint32(&header.Block_status, unix.TP_STATUS_KERNEL)
		r.offset = 0
		if r.block++; r.block == blocks {
			r.block = 0
		}
		header = r.header()
	}
	status := atomic.LoadUint32(&header.Block_status)
	if status&unix.TP_STATUS_USER == 0 {
		return false
	}
	if status&unix.TP_STATUS_BLK_TMO == 0 {
		r.full++
	}
	r.left, r.offset = header.Num_pkts, header.Offset_to_first_pkt
	return true
}

// header returns that of the block at hand, struct tpacket_block_desc, behind
// version and private data.
func (r *Ring) header() *unix.TpacketHdrV1 {
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&r.memory[r.block*blockSize+8]))
}

// read reads the frame at hand and tells whether it is to be shown. The kernel
// wrote the offsets; a mistake of it must not lead us out of the block.
func (r *Ring) read(f *Frame) bool {
	block := (*[blockSize]byte)(r.memory[r.block*blockSize:])
	const headers = unix.SizeofTpacket3Hdr + unix.SizeofSockaddrLinklayer
	if r.offset > blockSize-headers {
		r.left = 0
		return false
	}
	h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[r.offset]))
	from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&block[r.offset+unix.SizeofTpacket3Hdr]))
	start := r.offset + uint32(h.Mac)
	end := start + h.Snaplen
	if end > blockSize || end < start {
		r.left = 0
		return false
	}
	f.Data = block[start:end:end]
	f.Length = h.Len
	f.Time = int64(h.Sec)*1000 + int64(h.Nsec/1e6)
	f.Nanosecond = h.Nsec
	f.VLAN = 0
	if h.Status&unix.TP_STATUS_VLAN_VALID != 0 {
		f.VLAN = uint16(h.Hv1.Vlan_tci & 0xfff)
	}
	f.Outgoing = from.Pkttype == unix.PACKET_OUTGOING
	f.Segment = 0
	if r.vnet && h.Mac >= headers+virtioHeader {
		if v := block[start-virtioHeader : start : start]; v[1] != 0 { // gso_type
			f.Segment = binary.NativeEndian.Uint16(v[4:])
		}
	}
	r.offset += h.Next_offset
	if h.Next_offset == 0 {
		r.left = 0
	}
	return !(f.Outgoing && r.loopback)
}

// virtioHeader is the size of struct virtio_net_hdr.
const virtioHeader = 10

// Interrupt ends ZeroCopyReadPacketData soon. It may be called by another
// goroutine.
func (r *Ring) Interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

func (r *Ring) wait() error {
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()
	if ended {
		return io.EOF
	}
	fds := [1]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds[:], 100); err != nil && err != unix.EINTR {
		return err
	}
	if (fds[0].Revents&unix.POLLERR != 0 || r.down) && r.Gone() {
		return ErrNoInterface
	}
	return nil
}
