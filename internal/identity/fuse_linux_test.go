// SPDX-License-Identifier: BSD-3-Clause

// qemu-user passes neither mounts nor /dev/fuse on to a program of another
// byte order.
//go:build !mips && !mipsle && !mips64 && !mips64le

package identity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fuse is a filesystem of one folder. Every file is opened with
// FOPEN_DIRECT_IO, for which the kernel refuses a shared mapping, as for a file
// of JFFS2. The layouts are those of linux/fuse.h, version 7.31.
type fuse struct {
	dev *os.File

	mu     sync.Mutex
	next   uint64
	names  map[string]uint64
	files  map[uint64]*fuseFile
	fail   map[uint32]unix.Errno // what an operation returns
	called map[uint32]int
}

type fuseFile struct {
	mode     uint32
	uid, gid uint32
	data     []byte
}

const (
	fuseLookup, fuseForget, fuseGetattr, fuseSetattr   = 1, 2, 3, 4
	fuseUnlink, fuseRename, fuseOpen, fuseRead         = 10, 12, 14, 15
	fuseWrite, fuseRelease, fuseFsync, fuseFlush       = 16, 18, 20, 25
	fuseInit, fuseOpendir, fuseReleasedir              = 26, 27, 29
	fuseFsyncdir, fuseCreate, fuseInterrupt, fuseBatch = 30, 35, 36, 42
	fuseRoot                                           = 1
)

// mountFuse mounts the filesystem, in a namespace of this test.
func mountFuse(t *testing.T, dir string) *fuse {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		missingTool(t, "open /dev/fuse: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40700,user_id=%d,group_id=%d", fd, os.Getuid(), os.Getgid())
	if err := unix.Mount("overflowd-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		missingTool(t, "mount a FUSE filesystem: %v", err)
	}
	f := &fuse{
		dev: os.NewFile(uintptr(fd), "/dev/fuse"), next: fuseRoot + 1, names: map[string]uint64{},
		files:  map[uint64]*fuseFile{fuseRoot: {mode: unix.S_IFDIR | 0o700, uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}},
		called: map[uint32]int{},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		f.serve()
	}()
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		<-served // the device has no more to read
		f.dev.Close()
	})
	return f
}

func (f *fuse) serve() {
	request := make([]byte, 1<<17)
	for {
		n, err := f.dev.Read(request)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue // the request was taken back
		}
		if err != nil || n < 40 {
			return
		}
		op, unique, node := ne.Uint32(request[4:]), ne.Uint64(request[8:]), ne.Uint64(request[16:])
		if op == fuseForget || op == fuseBatch || op == fuseInterrupt {
			continue
		}
		f.mu.Lock()
		f.called[op]++
		reply, errno := []byte(nil), f.fail[op]
		if errno == 0 {
			reply, errno = f.do(op, node, request[40:n])
		}
		f.mu.Unlock()
		if errno != 0 {
			reply = nil
		}
		out := ne.AppendUint32(nil, uint32(16+len(reply)))
		out = ne.AppendUint32(out, uint32(-int32(errno)))
		out = append(ne.AppendUint64(out, unique), reply...)
		if _, err := f.dev.Write(out); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

var ne = binary.NativeEndian

func (f *fuse) do(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	file := f.files[node]
	switch op {
	case fuseInit:
		out := []byte{}
		for _, v := range []uint32{7, 31, 0, 0, 0, 1 << 16, 1} { // version, readahead, flags, background, max_write, time_gran
			out = ne.AppendUint32(out, v)
		}
		return append(out, make([]byte, 64-len(out))...), 0
	case fuseLookup:
		node, ok := f.names[cString(in)]
		if !ok {
			return nil, unix.ENOENT
		}
		return f.entry(node), 0
	case fuseGetattr:
		return append(make([]byte, 16), f.attr(node)...), 0
	case fuseSetattr:
		switch valid := ne.Uint32(in); {
		case valid&1 != 0:
			file.mode = ne.Uint32(in[68:])
		case valid&8 != 0:
			file.data = slices.Grow(file.data, int(ne.Uint64(in[16:])))[:ne.Uint64(in[16:])]
		}
		return append(make([]byte, 16), f.attr(node)...), 0
	case fuseUnlink:
		delete(f.names, cString(in))
		return nil, 0
	case fuseRename:
		old := cString(in[8:])
		f.names[cString(in[8+len(old)+1:])] = f.names[old]
		delete(f.names, old)
		return nil, 0
	case fuseCreate:
		f.next++
		f.files[f.next] = &fuseFile{mode: ne.Uint32(in[4:]), uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}
		f.names[cString(in[16:])] = f.next
		return append(f.entry(f.next), fuseOpened...), 0
	case fuseOpen, fuseOpendir:
		return fuseOpened, 0
	case fuseRead:
		offset, size := ne.Uint64(in[8:]), ne.Uint32(in[16:])
		rest := file.data[min(offset, uint64(len(file.data))):]
		return rest[:min(int(size), len(rest))], 0
	case fuseWrite:
		offset, data := int(ne.Uint64(in[8:])), in[40:]
		if over := offset + len(data) - len(file.data); over > 0 {
			file.data = append(file.data, make([]byte, over)...)
		}
		copy(file.data[offset:], data)
		return ne.AppendUint64(nil, uint64(ne.Uint32(in[16:]))), 0
	case fuseRelease, fuseReleasedir, fuseFlush, fuseFsync, fuseFsyncdir:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// fuseOpened is a file handle of zero and FOPEN_DIRECT_IO.
var fuseOpened = append(make([]byte, 8), append(ne.AppendUint32(nil, 1), 0, 0, 0, 0)...)

func (f *fuse) entry(node uint64) []byte {
	return append(append(ne.AppendUint64(nil, node), make([]byte, 32)...), f.attr(node)...)
}

func (f *fuse) attr(node uint64) []byte {
	file := f.files[node]
	out := ne.AppendUint64(ne.AppendUint64(nil, node), uint64(len(file.data)))
	out = append(out, make([]byte, 4*8+3*4)...) // blocks, times
	for _, v := range []uint32{file.mode, 1, file.uid, file.gid, 0, 4096, 0} {
		out = ne.AppendUint32(out, v)
	}
	return out
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// failing lets an operation fail while do runs.
func (f *fuse) failing(op uint32, errno unix.Errno, do func()) {
	f.mu.Lock()
	f.fail = map[uint32]unix.Errno{op: errno}
	f.mu.Unlock()
	do()
	f.mu.Lock()
	f.fail = nil
	f.mu.Unlock()
}

func (f *fuse) calls(op uint32) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.called[op]
}
