// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"testing"
)

func TestAGlanceFindsWhatOpenFinds(t *testing.T) {
	tr := testTracer("192.0.2.1", "192.0.2.2")
	m := tr.AppendMessage(nil)
	g, ok := Peek(m)
	if !ok || g.To != tr.To || g.Time != tr.Time || g.Nonce != tr.Nonce {
		t.Errorf("%+v, %v of %s", g, ok, m)
	}
	for text, want := range map[string]Glance{
		`{}`: {},
		" { \"metadata\" : { \"x\":[1,{\"time\":3}] , \"time\" : 1.5e3 } , \"a\":\"\\\"}\" } ":                                  {Time: 1_500_000},
		`{"x":{"to":"192.0.2.9","nonce":"0"},"metadata":{"time":1790000060.25},"to":"192.0.2.1"}`:                               {Time: 1790000060250, To: tr.Flow.SrcAddr()},
		`{"t\u006f":"192.0.2.1","metadata":{"time":1},"nonce":"000102030405060A"}`:                                              {Time: 1000, To: tr.Flow.SrcAddr(), Nonce: [8]byte{0, 1, 2, 3, 4, 5, 6, 10}},
		`{"metadata":{"time":0.00000000000000000000000000000000000000000000000000000000000000000000000000000000000001},"b":{}}`: {},
	} {
		if g, ok := Peek([]byte(text)); !ok || g != want {
			t.Errorf("%s: %+v, %v", text, g, ok)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"to":"x"}`, `{"to":1}`, `{"nonce":"12"}`, `{"metadata":{"time":"1"}}`, `{"metadata":{"time":-1}}`,
		`{"metadata":{"time":1e99}}`, `{"a":1}}`, `{"a":[[[[[[[[[[]]]]]]]]]]}`, `{"a"}`, `{"a":}`, `{"a":"\`, `{"a":"`, `{"a":1,}`} {
		if g, ok := Peek([]byte(text)); ok {
			t.Errorf("%s: taken: %+v", text, g)
		}
	}
}

func TestAGlanceDoesNotAllocate(t *testing.T) {
	tr := testTracer("192.0.2.1", "192.0.2.2")
	m := tr.AppendMessage(nil)
	if n := testing.AllocsPerRun(100, func() { Peek(m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzPeek: whatever Open takes, Peek has found in it the same.
func FuzzPeek(f *testing.F) {
	n := 0
	for _, v := range vectors(f) {
		parse := ParseLine
		if v.form == "datagram" {
			parse = ParseDatagram
		}
		if s, err := parse(v.payload); err == nil {
			f.Add(s.Message)
			n++
		}
	}
	if n < 10 {
		f.Fatalf("a corpus of %d", n)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		before := bytes.Clone(message)
		g, ok := Peek(message)
		if !bytes.Equal(before, message) {
			t.Fatal("the message was changed")
		}
		root, err := parseObject(message)
		if err != nil {
			return
		}
		r := reader{}
		m := r.message(root, PublicKey{})
		if r.bad != "" {
			return
		}
		if !ok || g.To != m.To || g.Time != m.Time || g.Nonce != m.Nonce {
			t.Errorf("a glance at %q gives %+v, %v; read: %v %v %v", message, g, ok, m.To, m.Time, m.Nonce)
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	tr := testTracer("192.0.2.1", "192.0.2.2")
	m := tr.AppendMessage(nil)
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		Peek(m)
	}
}

func BenchmarkVerify(b *testing.B) {
	tr := testTracer("192.0.2.1", "192.0.2.2")
	s := Sign(testKey(1), tr.AppendMessage(nil))
	for b.Loop() {
		s.Verify()
	}
}
