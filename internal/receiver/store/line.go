// SPDX-License-Identifier: BSD-3-Clause

package store

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

// A line of the store is, with spaces between: the checksum (CRC-32C, 8
// hexadecimal digits) of all that follows it; when the tracer arrived (ms since
// the Unix epoch); who delivered it, or "-"; the hops it took, or "-"; "stale" or
// "fresh"; the level of its key; and the tracer: the key, the signature and the
// message in base64, which may be longer than a datagram.

const maxLine = 16 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendLine(dst []byte, x *receiver.Received) []byte {
	start := len(dst)
	dst = append(dst, "00000000 "...)
	dst = strconv.AppendInt(dst, x.Arrived.UnixMilli(), 10)
	dst = append(dst, ' ')
	if x.From.IsValid() {
		dst = x.From.AppendTo(dst)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, ' ')
	if x.Hops >= 0 {
		dst = strconv.AppendInt(dst, int64(x.Hops), 10)
	} else {
		dst = append(dst, '-')
	}
	if x.Stale {
		dst = append(dst, " stale "...)
	} else {
		dst = append(dst, " fresh "...)
	}
	dst = append(dst, x.Level.String()...)
	dst = append(dst, ' ')
	signed := append(append(append(make([]byte, 0, 96+len(x.Signed.Message)), x.Signed.Key[:]...), x.Signed.Signature[:]...), x.Signed.Message...)
	dst = base64.StdEncoding.AppendEncode(dst, signed)
	copy(dst[start:], fmt.Sprintf("%08x", crc32.Checksum(dst[start+9:], castagnoli)))
	return append(dst, '\n')
}

var errLine = errors.New("not a line of the store")

// arrivedAt reads no more of a line than when its tracer arrived.
func arrivedAt(line []byte) (ms int64, ok bool) {
	if len(line) < 10 || line[8] != ' ' {
		return 0, false
	}
	text, _, ok := bytes.Cut(line[9:], []byte(" "))
	if !ok {
		return 0, false
	}
	ms, err := strconv.ParseInt(string(text), 10, 64)
	return ms, err == nil
}

// parseLine reads a line without its end.
func parseLine(line []byte) (*receiver.Received, error) {
	if len(line) < 10 || len(line) > maxLine {
		return nil, errLine
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil || line[8] != ' ' || uint32(sum) != crc32.Checksum(line[9:], castagnoli) {
		return nil, errLine
	}
	words := bytes.Split(line[9:], []byte(" "))
	if len(words) != 6 {
		return nil, errLine
	}
	x := &receiver.Received{Hops: -1}
	ms, err := strconv.ParseInt(string(words[0]), 10, 64)
	if err != nil {
		return nil, errLine
	}
	x.Arrived = time.UnixMilli(ms)
	if text := string(words[1]); text != "-" {
		if x.From, err = netip.ParseAddr(text); err != nil {
			return nil, errLine
		}
	}
	if text := string(words[2]); text != "-" {
		if x.Hops, err = strconv.Atoi(text); err != nil || x.Hops < 0 || x.Hops > 255 {
			return nil, errLine
		}
	}
	switch string(words[3]) {
	case "stale":
		x.Stale = true
	case "fresh":
	default:
		return nil, errLine
	}
	var ok bool
	if x.Level, ok = receiver.ParseLevel(string(words[4])); !ok {
		return nil, errLine
	}
	signed, err := base64.StdEncoding.Strict().DecodeString(string(words[5]))
	if err != nil || len(signed) < 98 {
		return nil, errLine
	}
	x.Signed = tracer.Signed{Key: tracer.PublicKey(signed[:32]), Signature: [64]byte(signed[32:96]), Message: signed[96:]}
	if x.Message, err = x.Signed.Read(); err != nil {
		return nil, errLine
	}
	return x, nil
}
