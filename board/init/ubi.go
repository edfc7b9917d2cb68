// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/overflowd/overflowd/board/control"
)

// Of include/uapi/mtd/ubi-user.h: attach a flash device, and make a volume.
var (
	attachCommand = iow('o', 64, 24)
	volumeCommand = iow('o', 0, 152)
)

// iow is the kernel's _IOW. Where it has the direction differs: TUNSETIFF is one.
func iow(kind, number, size uintptr) uintptr {
	return unix.TUNSETIFF&0xe0000000 | size<<16 | kind<<8 | number
}

func attach(u *control.UBI) error {
	c, err := os.OpenFile("/dev/ubi_ctrl", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	request := make([]byte, 24) // ubi_num, mtd_num, vid_hdr_offset, max_beb_per1024, padding
	binary.NativeEndian.PutUint32(request, 0)
	binary.NativeEndian.PutUint32(request[4:], uint32(u.Device))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, c.Fd(), attachCommand, uintptr(unsafe.Pointer(&request[0]))); errno != 0 {
		return fmt.Errorf("attach flash device %d: %w", u.Device, errno)
	}
	names, err := os.ReadDir("/sys/class/ubi")
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), "ubi0_") {
			return nil // there already
		}
	}
	d, err := os.OpenFile("/dev/ubi0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	request = make([]byte, 152) // vol_id, alignment, bytes (64), type (8), flags (8), name_len (16), padding, name
	binary.NativeEndian.PutUint32(request, 0xffffffff)
	binary.NativeEndian.PutUint32(request[4:], 1)
	binary.NativeEndian.PutUint64(request[8:], uint64(u.Size))
	request[16] = 3 // dynamic
	binary.NativeEndian.PutUint16(request[18:], uint16(len(u.Volume)))
	copy(request[24:], u.Volume)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), volumeCommand, uintptr(unsafe.Pointer(&request[0]))); errno != 0 {
		return fmt.Errorf("make the volume %s: %w", u.Volume, errno)
	}
	return nil
}
