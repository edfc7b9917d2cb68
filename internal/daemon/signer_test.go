// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/tracer"
)

// TestEvidenceTakesTheRoomThatIsLeft: with the longest contact and flow it is shortened
// so that the tracer fits in a datagram, and a usual one keeps all.
func TestEvidenceTakesTheRoomThatIsLeft(t *testing.T) {
	s := newSigner(identity.Open(t.TempDir()))
	full := tracer.Evidence{Spoofed: "unknown", Method: "special", Point: "lan", Suspicion: evidence.AllReasons.Names()}
	usual := flow.Record{Key: flow.Key{Protocol: 17, SrcPort: 53, DstPort: 4444, Family: flow.IPv4},
		Known: flow.HasPorts | flow.HasPackets | flow.HasBytes | flow.HasStart | flow.HasEnd | flow.HasTTL, Packets: 12345, Bytes: 12345678, Start: 1e12, End: 1e12, TTL: 60}
	contact := tracer.Contact{Email: "abuse@example.net", Identity: "Example Net", URL: "https://example.net/abuse", Role: "abuse", ASN: 64496}
	signed, err := s.Sign(&tracer.Tracer{Flow: usual, Evidence: full, Contact: contact, Rate: 1e-4, Selected: 3, To: netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	read, err := signed.Open()
	if err != nil || !reflect.DeepEqual(read.Evidence, full) {
		t.Errorf("%v: %+v", err, read.Evidence)
	}

	ones := netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	const most = 1<<64 - 1
	long := usual
	long.Key = flow.Key{Src: ones.As16(), Dst: ones.As16(), SrcPort: 65535, DstPort: 65535, Protocol: 255, Family: flow.IPv6}
	long.Known |= flow.HasTOS | flow.HasTCPFlags
	long.Source, long.TOS, long.TCPFlags, long.Interval = flow.Source{Protocol: flow.NetFlow, Version: 255}, 255, 255, 1<<32-1
	long.Packets, long.Bytes, long.Start, long.End = most, most, 1e16, 1e16
	seen := map[int]bool{}
	for n := 1; n < 1000; n++ {
		contact.Identity = strings.Repeat("x", n)
		x := tracer.Tracer{Flow: long, Evidence: full, Contact: contact, Rate: 1.0 / 3e6, Selected: most, Held: most, To: ones}
		signed, err := s.Sign(&x)
		if err != nil {
			t.Fatal(err)
		}
		if without := (&tracer.Tracer{Flow: long, Contact: contact, Rate: x.Rate, Selected: most, Held: most, To: ones, Time: x.Time, Seq: x.Seq}).AppendMessage(nil); len(without) > tracer.MaxMessage {
			break
		}
		if len(signed.Message) > tracer.MaxMessage {
			t.Fatalf("%d bytes with a name of %d", len(signed.Message), n)
		}
		seen[len(x.Suspicion)] = true
	}
	least := 5
	if mini { // all or none
		least = 2
	}
	if len(seen) < least || !seen[0] {
		t.Errorf("the lists of reasons had lengths %v", seen)
	}
}
