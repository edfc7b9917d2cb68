// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// TestSealedTracers are opened, by UDP and HTTP, with the key that is told and with the
// one before.
func TestSealedTracers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	old, err := NewSealKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	both, err := NewSealKey(dir)
	if err != nil || len(both) != 2 || both[1] == both[0] || !both[1].Equal(old[0]) {
		t.Fatalf("%v: %d keys", err, len(both))
	}
	if info, err := os.Stat(filepath.Join(dir, SealFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v: %v", err, info.Mode())
	}
	seal := func(key tracer.SealKey, s tracer.Signed) []byte {
		return must(tracer.Seal(nil, key, s.AppendDatagram(nil)))
	}
	r := start(t, dir)
	if _, _, text := get(t, r.http); text != `{"overflowd":1,"seal":"`+both.Key().String()+"\"}\n" {
		t.Errorf("the document: %s", text)
	}
	c := must(net.Dial("udp", r.udp))
	c.Write(seal(both.Key(), signed(1, func(m *tracer.Tracer) { m.Contact.Identity = "By UDP" })))
	until(t, r.web+"/live.json", "By UDP")
	c.Write(seal(old.Key(), signed(1, func(m *tracer.Tracer) { m.Contact.Identity = "To the old key" })))
	until(t, r.web+"/live.json", "To the old key")
	broken := seal(both.Key(), signed(1, nil))
	broken[100] ^= 4
	c.Write(broken)
	c.Write(broken[:40])
	until(t, r.web+"/metrics", `overflow_receiver_tracers_total{result="unopened"} 2`)

	another := signed(2, func(m *tracer.Tracer) { m.Contact.Identity = "By HTTP" })
	for _, x := range []struct {
		what string
		body []byte
		want int
	}{
		{"a sealed one", seal(both.Key(), another), 204},
		{"the same, sealed again", seal(both.Key(), another), 208},
		{"a broken one", broken, 400},
		{"of another recipient", seal(both.Key(), signed(2, func(m *tracer.Tracer) { m.To = netip.MustParseAddr("203.0.113.6") })), 421},
		{"too large", append(seal(both.Key(), another), make([]byte, tracer.MaxDatagram)...), 400},
	} {
		resp, err := http.Post(r.http, "application/octet-stream", bytes.NewReader(x.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("%s: %d, want %d", x.what, resp.StatusCode, x.want)
		}
	}
	if _, _, text := get(t, r.web+"/report.json"); !strings.Contains(text, `"tracers":3,`) {
		t.Errorf("%s", text)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestARunningProgramSeesAnotherKey, and a file that is none changes nothing.
func TestARunningProgramSeesAnotherKey(t *testing.T) {
	k := sealKeys{dir: t.TempDir()}
	if err := k.load(); err != nil || k.key() != (tracer.SealKey{}) {
		t.Fatal(err)
	}
	sealed := make([]byte, 300)
	copy(sealed, "OVERFLWS")
	if _, err := k.open(sealed); err != receiver.Sealed {
		t.Errorf("without a key: %v", err)
	}
	for range maxSealKeys + 2 {
		all, err := NewSealKey(k.dir)
		if err != nil || len(all) > maxSealKeys {
			t.Fatalf("%v: %d keys", err, len(all))
		}
		k.stamp = time.Time{} // a file system's clock may be coarse
		if err := k.load(); err != nil || k.key() != all.Key() || !strings.Contains(string(k.document()), all.Key().String()) {
			t.Errorf("%v: %s", err, k.document())
		}
	}
	have := k.key()
	if err := os.WriteFile(filepath.Join(k.dir, SealFile), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.stamp = time.Time{}
	if err := k.load(); err == nil || k.key() != have {
		t.Errorf("%v", err)
	}
	if _, err := NewSealKey(k.dir); err == nil {
		t.Error("what was no key was written over")
	}
}
