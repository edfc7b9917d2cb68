// SPDX-License-Identifier: BSD-3-Clause

// Package adb writes the container of apk-tools 3, the "Alpine database": blocks,
// the first of which holds a value, of objects, numbers and blobs that refer to each
// other by offsets. It follows apk-tools 3.0: src/adb.h, and the manual pages
// apk-v3(5) and adb(5). All numbers are little-endian.
//
//	file    magic "ADB.", schema (4 bytes), blocks
//	block   type<<30 | size of type, size and payload (4 bytes), payload, zeros up to 8
//	payload of the first: version (4 bytes, 0), root value (4 bytes), data
//	value   type (high 4 bits) and a small number, or an offset from the payload's begin
package adb

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
)

// Value is a number, or where a value is.
type Value uint32

// Null is the value that is not there.
const Null Value = 0

// Types of values.
const (
	typeInt    Value = 0x1 << 28
	typeInt32  Value = 0x2 << 28
	typeInt64  Value = 0x3 << 28
	typeBlob8  Value = 0x8 << 28
	typeBlob16 Value = 0x9 << 28
	typeBlob32 Value = 0xa << 28
	typeObject Value = 0xe << 28
)

// Types of blocks.
const (
	blockADB  = 0
	blockData = 2
)

const headerSize = 8 // version and root

// Writer collects values. What is equal is written once.
type Writer struct {
	payload []byte
	known   map[string][]uint32 // offsets of what was written
}

// NewWriter returns an empty one.
func NewWriter() *Writer {
	return &Writer{payload: make([]byte, headerSize), known: map[string][]uint32{}}
}

func (w *Writer) data(b []byte, align int) Value {
	for _, offset := range w.known[string(b)] {
		if int(offset)%align == 0 {
			return Value(offset)
		}
	}
	offset := w.fresh(b, align)
	w.known[string(b)] = append(w.known[string(b)], uint32(offset))
	return offset
}

// fresh writes what no other value may share.
func (w *Writer) fresh(b []byte, align int) Value {
	for len(w.payload)%align != 0 {
		w.payload = append(w.payload, 0)
	}
	offset := len(w.payload)
	w.payload = append(w.payload, b...)
	return Value(offset)
}

// Int writes a number.
func (w *Writer) Int(n uint64) Value {
	switch {
	case n < 1<<28:
		return typeInt | Value(n)
	case n < 1<<32:
		return typeInt32 | w.data(binary.LittleEndian.AppendUint32(nil, uint32(n)), 4)
	}
	return typeInt64 | w.data(binary.LittleEndian.AppendUint64(nil, n), 4)
}

// Blob writes bytes; none are Null.
func (w *Writer) Blob(b []byte) Value {
	switch n := len(b); {
	case n == 0:
		return Null
	case n < 1<<8:
		return typeBlob8 | w.data(append([]byte{byte(n)}, b...), 1)
	case n < 1<<16:
		return typeBlob16 | w.data(append(binary.LittleEndian.AppendUint16(nil, uint16(n)), b...), 2)
	default:
		return typeBlob32 | w.data(append(binary.LittleEndian.AppendUint32(nil, uint32(n)), b...), 4)
	}
}

// Text writes a text as a blob.
func (w *Writer) Text(s string) Value { return w.Blob([]byte(s)) }

// Place writes a blob of n zeros, n up to 255, that Fill overwrites.
func (w *Writer) Place(n int) Value {
	return typeBlob8 | w.fresh(append([]byte{byte(n)}, make([]byte, n)...), 1)
}

// Fill overwrites the bytes of a Place.
func (w *Writer) Fill(place Value, b []byte) {
	copy(w.payload[(place&^(0xf<<28))+1:], b)
}

// Object writes an object of fields, or an array of elements: field 1 comes first.
// Nulls at the end are left out; of nothing but Nulls it is Null.
func (w *Writer) Object(fields ...Value) Value {
	n := len(fields)
	for n > 0 && fields[n-1] == Null {
		n--
	}
	if n == 0 {
		return Null
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(n+1))
	for _, f := range fields[:n] {
		b = binary.LittleEndian.AppendUint32(b, uint32(f))
	}
	return typeObject | w.data(b, 4)
}

// Root sets the value that the others belong to.
func (w *Writer) Root(v Value) { binary.LittleEndian.PutUint32(w.payload[4:], uint32(v)) }

// Payload returns the bytes of the first block, over which a package's hash goes.
func (w *Writer) Payload() []byte { return w.payload }

// File is a container.
type File struct {
	b       []byte
	payload []byte // of the first block
	first   int    // where that ends
}

// NewFile begins the container of a schema, four letters, with what w holds.
func NewFile(schema string, w *Writer) *File {
	f := &File{b: []byte("ADB." + schema), payload: w.payload}
	f.block(blockADB, w.payload)
	f.first = len(f.b)
	return f
}

func (f *File) block(kind uint32, payload ...[]byte) {
	size := 4
	for _, p := range payload {
		size += len(p)
	}
	f.b = binary.LittleEndian.AppendUint32(f.b, kind<<30|uint32(size))
	for _, p := range payload {
		f.b = append(f.b, p...)
	}
	for len(f.b)%8 != 0 {
		f.b = append(f.b, 0)
	}
}

// Data adds the contents of a file of a package, the file-th, from 1, of the
// folder-th.
func (f *File) Data(folder, file int, b []byte) {
	at := binary.LittleEndian.AppendUint32(nil, uint32(folder))
	f.block(blockData, binary.LittleEndian.AppendUint32(at, uint32(file)), b)
}

// Plain returns the container without compression.
func (f *File) Plain() []byte { return f.b }

// Deflated returns the container compressed: "ADBd" and a stream of RFC 1951.
func (f *File) Deflated() ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("ADBd")
	z, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(f.b); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	err = z.Close()
	return out.Bytes(), err
}
