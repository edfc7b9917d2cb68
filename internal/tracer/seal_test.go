// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func opener(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestASealedTracerIsOpenedByItsRecipient, and by nobody else; and by one that rolled
// its key.
func TestASealedTracerIsOpenedByItsRecipient(t *testing.T) {
	x := testTracer("198.51.100.7", "203.0.113.5")
	s := Sign(testKey(1), x.AppendMessage(nil))
	datagram := s.AppendDatagram(nil)
	old, stranger := Openers{opener(t)}, Openers{opener(t)}
	sealed, err := Seal([]byte("before"), old.Key(), datagram)
	if err != nil || string(sealed[:6]) != "before" {
		t.Fatal(err)
	}
	sealed = sealed[6:]
	if len(sealed) != len(datagram)+SealOverhead || !IsSealed(sealed) {
		t.Errorf("%d bytes of %d", len(sealed), len(datagram))
	}
	for _, clear := range []string{"198.51.100.7", "203.0.113.5", "abuse@", "saddr"} {
		if bytes.Contains(sealed, []byte(clear)) {
			t.Errorf("%s is there in the clear", clear)
		}
	}
	again, err := Seal(nil, old.Key(), datagram)
	if err != nil || bytes.Equal(again[8:40], sealed[8:40]) {
		t.Errorf("%v: two exchanges have one key", err)
	}
	if _, err := stranger.Open(sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("a stranger: %v", err)
	}
	rolled := append(Openers{opener(t)}, old...)
	if rolled.Key() == old.Key() {
		t.Error("the old key is told")
	}
	for _, o := range []Openers{old, rolled} {
		if b, err := o.Open(sealed); err != nil || !bytes.Equal(b, datagram) {
			t.Errorf("%v", err)
		}
	}
	for n := range len(sealed) {
		if _, err := old.Open(sealed[:n]); err == nil {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
	if _, err := Seal(nil, SealKey{}, datagram); err == nil {
		t.Error("sealed to a key of small order")
	}
	if _, err := (Openers{}).Open(sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("without a key: %v", err)
	}
}

// TestOpenersAreFilesOfOpenssl both ways.
func TestOpenersAreFilesOfOpenssl(t *testing.T) {
	want := Openers{opener(t), opener(t)}
	text, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseOpeners(text)
	if err != nil || len(got) != 2 || !got[0].Equal(want[0]) || !got[1].Equal(want[1]) {
		t.Fatalf("%v: %v", err, got)
	}
	for _, bad := range []string{"", "x", string(text) + "x", string(text[:60])} {
		if o, err := ParseOpeners([]byte(bad)); err == nil {
			t.Errorf("%q: %d keys", bad, len(o))
		}
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if out, err := exec.Command(openssl, "genpkey", "-algorithm", "x25519", "-out", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err = os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	o, err := ParseOpeners(text)
	if err != nil {
		t.Fatal(err)
	}
	der, err := exec.Command(openssl, "pkey", "-in", file, "-pubout", "-outform", "DER").Output()
	if key := o.Key(); err != nil || !bytes.HasSuffix(der, key[:]) {
		t.Errorf("%v: %x is not of %x", err, key, der)
	}
}

func FuzzUnseal(f *testing.F) {
	secret := Openers{opener(f)}
	x := testTracer("198.51.100.7", "203.0.113.5")
	s := Sign(testKey(1), x.AppendMessage(nil))
	good, err := Seal(nil, secret.Key(), s.AppendDatagram(nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, v := range vectors(f) {
		f.Add(v.payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if inner, err := secret.Open(b); err == nil && !bytes.Equal(b, good) {
			t.Errorf("%x opened as %x", b, inner)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	secret := Openers{opener(b)}
	x := testTracer("198.51.100.7", "203.0.113.5")
	s := Sign(testKey(1), x.AppendMessage(nil))
	d := s.AppendDatagram(nil)
	for b.Loop() {
		if _, err := Seal(nil, secret.Key(), d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnseal(b *testing.B) {
	secret := Openers{opener(b)}
	x := testTracer("198.51.100.7", "203.0.113.5")
	s := Sign(testKey(1), x.AppendMessage(nil))
	sealed, err := Seal(nil, secret.Key(), s.AppendDatagram(nil))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := secret.Open(sealed); err != nil {
			b.Fatal(err)
		}
	}
}
