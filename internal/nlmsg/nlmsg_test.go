// SPDX-License-Identifier: BSD-3-Clause

package nlmsg

import (
	"bytes"
	"encoding/binary"
	"os"
	"syscall"
	"testing"
)

// message is one as the kernel of this machine writes it, of a length that may be wrong.
func message(length uint32, kind, flags uint16, payload ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, length)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 7) // sequence
	b = binary.NativeEndian.AppendUint32(b, 9) // port
	return append(b, payload...)
}

func attribute(length, kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, length)
	return append(binary.NativeEndian.AppendUint16(b, kind), value...)
}

func TestMessagesAreCutWhereTheyEnd(t *testing.T) {
	last := message(16, Done, Multi)
	m, rest, err := Cut(append(message(19, 256, Multi|Interrupted, 1, 2, 3, 0), last...))
	if err != nil || m.Kind != 256 || m.Flags != Multi|Interrupted || m.Sequence != 7 || !bytes.Equal(m.Payload, []byte{1, 2, 3}) || !bytes.Equal(rest, last) {
		t.Errorf("%v: %+v, then %v", err, m, rest)
	}
	if m, rest, err = Cut(rest); err != nil || m.Kind != Done || len(m.Payload) != 0 || len(rest) != 0 {
		t.Errorf("%v: %+v, then %v", err, m, rest)
	}
	if m, rest, err = Cut(message(17, 1, 0, 5)); err != nil || !bytes.Equal(m.Payload, []byte{5}) || len(rest) != 0 {
		t.Errorf("the last without its padding: %v: %+v, then %v", err, m, rest)
	}
	for _, b := range [][]byte{{}, message(16, 0, 0)[:15], message(0, 0, 0), message(15, 0, 0, make([]byte, 40)...), message(17, 0, 0), message(1<<32-1, 0, 0, make([]byte, 40)...)} {
		if _, _, err := Cut(b); err != ErrFormat {
			t.Errorf("a message out of %v: %v", b, err)
		}
	}
}

func TestAttributesAreCutWhereTheyEnd(t *testing.T) {
	last := attribute(8, 2, 1, 2, 3, 4)
	kind, value, rest, err := CutAttribute(append(attribute(5, 1<<15|1<<14|3, 9, 0, 0, 0), last...))
	if err != nil || kind != 3 || !bytes.Equal(value, []byte{9}) || !bytes.Equal(rest, last) {
		t.Errorf("%v: %d %v, then %v", err, kind, value, rest)
	}
	if kind, value, rest, err = CutAttribute(rest); err != nil || kind != 2 || !bytes.Equal(value, []byte{1, 2, 3, 4}) || len(rest) != 0 {
		t.Errorf("%v: %d %v, then %v", err, kind, value, rest)
	}
	for _, b := range [][]byte{{}, {4, 0, 1}, attribute(0, 1), attribute(3, 1), attribute(5, 1), attribute(1<<16-1, 1, make([]byte, 40)...)} {
		if _, _, _, err := CutAttribute(b); err != ErrFormat {
			t.Errorf("an attribute out of %v: %v", b, err)
		}
	}
}

func TestAnErrorIsReadFromItsMessage(t *testing.T) {
	refused := int32(-1)
	for _, c := range []struct {
		payload []byte
		want    error
	}{
		{binary.NativeEndian.AppendUint32(nil, uint32(refused)), syscall.EPERM},
		{make([]byte, 20), nil},
		{[]byte{1, 2}, nil},
	} {
		if m := (Message{Kind: Error, Payload: c.payload}); m.Err() != c.want {
			t.Errorf("%v is %v, want %v", c.payload, m.Err(), c.want)
		}
	}
}

// FuzzCut looks for a datagram that is read without end or beyond its end.
func FuzzCut(f *testing.F) {
	for _, name := range []string{"dump.bin", "destroy.bin"} {
		b, err := os.ReadFile("../../testdata/conntrack/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:512])
		f.Add(b[len(b)-20:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := Cut(b)
			if err != nil {
				break
			}
			if len(rest)+len(m.Payload)+16 > len(b) {
				t.Fatalf("%d bytes of payload and %d behind out of %d", len(m.Payload), len(rest), len(b))
			}
			m.Err()
			for a := m.Payload; len(a) > 0; {
				_, value, next, err := CutAttribute(a)
				if err != nil {
					break
				}
				if len(next)+len(value)+4 > len(a) {
					t.Fatalf("%d bytes of value and %d behind out of %d", len(value), len(next), len(a))
				}
				a = next
			}
			b = rest
		}
	})
}
