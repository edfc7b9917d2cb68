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
	old, err := receiver.NewSealKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	both, err := receiver.NewSealKey(dir)
	if err != nil || len(both) != 2 || both[1] == both[0] || !both[1].Equal(old[0]) {
		t.Fatalf("%v: %d keys", err, len(both))
	}
	if info, err := os.Stat(filepath.Join(dir, receiver.SealFile)); err != nil || info.Mode() != 0o600 {
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
