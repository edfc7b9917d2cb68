// SPDX-License-Identifier: BSD-3-Clause

package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A WriteLog is what QEMU's driver blklogwrites keeps of the writes to a disk, as the
// kernel's Documentation/admin-guide/device-mapper/log-writes.rst has it: a superblock,
// and behind it for each write a header and its data, in sectors, little-endian.
type WriteLog struct {
	data   []byte
	sector int
	at     int // of the next header
	left   int
}

const logMagic = 0x6a736677736872

// Flags of a write.
const (
	logDiscard = 1 << 2
	logMark    = 1 << 3
)

// Logged returns how many entries a log has so far.
func Logged(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [28]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("read the log of writes: %w", err)
	}
	if binary.LittleEndian.Uint64(b[:]) != logMagic {
		return 0, errors.New("this is no log of writes")
	}
	return int(binary.LittleEndian.Uint64(b[16:])), nil
}

// OpenWriteLog reads a log.
func OpenWriteLog(path string) (*WriteLog, error) {
	n, err := Logged(path)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l := &WriteLog{data: data, sector: int(binary.LittleEndian.Uint32(data[24:])), left: n}
	l.at = l.sector
	return l, nil
}

// Apply does the next write on an image, and returns how many of its bytes changed:
// what a flash programs, where QEMU writes whole sectors. It is false at the end.
func (l *WriteLog) Apply(image []byte) (changed int, more bool, err error) {
	if l.left == 0 {
		return 0, false, nil
	}
	if l.at+32 > len(l.data) {
		return 0, false, errors.New("the log of writes is cut short")
	}
	field := func(i int) int { return int(binary.LittleEndian.Uint64(l.data[l.at+8*i:])) }
	to, size, flags := field(0)*l.sector, field(1)*l.sector, field(2)
	l.at += l.sector
	l.left--
	if flags&(logDiscard|logMark) != 0 {
		return 0, true, nil
	}
	if l.at+size > len(l.data) || to+size > len(image) {
		return 0, false, errors.New("a write is outside of the log or the image")
	}
	for i, b := range l.data[l.at : l.at+size] {
		if image[to+i] != b {
			image[to+i] = b
			changed++
		}
	}
	l.at += size
	return changed, true, nil
}
