// SPDX-License-Identifier: BSD-3-Clause

package adb

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"os"
	"testing"
)

// blocks returns the payloads of a container, and the types of its blocks.
func blocks(t *testing.T, b []byte) (kinds []uint32, payloads [][]byte) {
	t.Helper()
	for b = b[8:]; len(b) > 0; {
		n := binary.LittleEndian.Uint32(b)
		size := int(n & (1<<30 - 1))
		kinds, payloads = append(kinds, n>>30), append(payloads, b[4:size])
		b = b[min(len(b), (size+7)/8*8):]
	}
	return kinds, payloads
}

// TestWhatApkSigned: testdata/signed.apk is of apk mkpkg --sign-key, of apk-tools
// 3.0.5, and what we would sign of it is what apk did sign.
func TestWhatApkSigned(t *testing.T) {
	file, err := os.ReadFile("testdata/signed.apk")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/public.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	any, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := any.(*ecdsa.PublicKey)
	kinds, payloads := blocks(t, file)
	if len(kinds) != 3 || kinds[0] != blockADB || kinds[1] != blockSignature || kinds[2] != blockData {
		t.Fatalf("blocks %v", kinds)
	}
	f := &File{b: file, payload: payloads[0]}
	payload, digest, err := f.toSign(key)
	if err != nil {
		t.Fatal(err)
	}
	signature, ok := bytes.CutPrefix(payloads[1], payload)
	if !ok {
		t.Fatalf("apk's signature begins with %x, ours with %x", payloads[1][:len(payload)], payload)
	}
	if !ecdsa.VerifyASN1(key, digest, signature) {
		t.Error("apk has signed something else")
	}
}

func TestASignatureIsBehindTheFirstBlock(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var made [][]byte
	for range 2 {
		w := NewWriter()
		w.Root(w.Object(w.Text("sample")))
		f := NewFile("pckg", w)
		f.Data(1, 1, []byte("hello"))
		if err := f.Sign(key); err != nil {
			t.Fatal(err)
		}
		made = append(made, f.Plain())
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("two signatures of the same differ")
	}
	kinds, payloads := blocks(t, made[0])
	if len(kinds) != 3 || kinds[1] != blockSignature || kinds[2] != blockData || string(payloads[2][8:]) != "hello" {
		t.Fatalf("blocks %v", kinds)
	}
	_, digest, err := (&File{b: made[0], payload: payloads[0]}).toSign(&key.PublicKey)
	if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, payloads[1][2+keyNameSize:]) {
		t.Errorf("%v, or the signature is of something else", err)
	}
}

func TestAKeyThatIsNone(t *testing.T) {
	for name, file := range map[string]string{"nothing": "", "a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged": "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"} {
		if k, err := ParseKey([]byte(file)); err == nil {
			t.Errorf("%s: %v", name, k)
		}
	}
}
