// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package capture

import (
	"time"

	"github.com/google/gopacket"
)

// The program itself asks for frames with Next; this is for who has a program
// with gopacket. It is not in the smallest build, where its tables are 24 kB.
var _ gopacket.ZeroCopyPacketDataSource = (*Ring)(nil)

// ZeroCopyReadPacketData implements gopacket.ZeroCopyPacketDataSource: it waits
// for the next frame, and returns io.EOF after Interrupt. The ancillary data is
// the *Frame, which is valid as long as the data is.
func (r *Ring) ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error) {
	for !r.Next(&r.frame) {
		if err := r.wait(); err != nil {
			return nil, gopacket.CaptureInfo{}, err
		}
	}
	r.ancillary[0] = &r.frame
	return r.frame.Data, gopacket.CaptureInfo{
		Timestamp: time.UnixMilli(r.frame.Time), CaptureLength: len(r.frame.Data), Length: int(r.frame.Length),
		InterfaceIndex: r.index, AncillaryData: r.ancillary[:],
	}, nil
}
