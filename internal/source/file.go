// SPDX-License-Identifier: BSD-3-Clause

package source

import (
	"context"
	"errors"
	"io"

	"github.com/overflowd/overflowd/internal/packet"
	"github.com/overflowd/overflowd/internal/pcapfile"
)

// ReadFile takes the flow export datagrams of a capture file to the feed. It
// stops at the end of the file, when ctx is done, or at the first error of the
// file, which it returns: a file that is cut short was read to its last whole
// record all the same.
func ReadFile(ctx context.Context, r io.Reader, f *Feed) error {
	file, err := pcapfile.NewReader(r)
	if err != nil {
		return err
	}
	defer f.finish()
	var p pcapfile.Packet
	var d packet.Datagram
	for n := 0; ; n++ {
		end := file.Next(&p)
		if end == nil || len(p.Data) > 0 && errors.Is(end, pcapfile.ErrTruncated) {
			if err := packet.ParseUDP(p.LinkType, p.Data, &d); err != nil {
				add(&f.Counters.Drops[frameReason(err)], 1)
			} else {
				f.receive(d.Src, p.Time/1e9, d.Payload)
			}
		}
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return end
		}
		if n%256 == 0 && ctx.Err() != nil {
			return nil
		}
	}
}

// frameReason names an error of packet.ParseUDP.
func frameReason(err error) Reason {
	switch err {
	case packet.ErrNotUDP, packet.ErrNotIP:
		return Foreign
	case packet.ErrFragment:
		return Fragment
	case packet.ErrLinkType:
		return LinkType
	}
	return Unreadable
}
