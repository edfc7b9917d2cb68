// SPDX-License-Identifier: BSD-3-Clause

package board

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// recording returns a pcap file of flows of so many packets each from the host to the
// far one, every second one of IPv6.
func recording(t testing.TB, flows, packets int) string {
	t.Helper()
	return shortened(t, flows, packets, 1<<16)
}

// shortened returns one of which each packet was captured up to that length.
func shortened(t testing.TB, flows, packets, length int) string {
	t.Helper()
	frames := make([][]byte, flows)
	for i := range frames {
		frames[i] = frame(t, i)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "pcap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := pcapgo.NewWriter(f)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Minute)
	for i := range flows * packets {
		b := frames[i%flows]
		at = at.Add(time.Millisecond)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: min(length, len(b)), Length: len(b)}, b[:min(length, len(b))]); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// frame returns a packet of 1,000 bytes of payload of the flow of that number.
func frame(t testing.TB, number int) []byte {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	e := &layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: layers.UDPPort(2000 + number), DstPort: 5000}
	var ip gopacket.SerializableLayer
	if number%2 == 0 {
		v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(host4), DstIP: net.ParseIP(far4)}
		udp.SetNetworkLayerForChecksum(v4)
		ip = v4
	} else {
		e.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(host6), DstIP: net.ParseIP(far6)}
		udp.SetNetworkLayerForChecksum(v6)
		ip = v6
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, e, ip, udp, gopacket.Payload(make([]byte, 1000)))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// exported returns a pcap file of so many datagrams of NetFlow v5, of 30 records each.
func exported(t testing.TB, datagrams int) []byte {
	t.Helper()
	now := time.Now()
	d := binary.BigEndian.AppendUint32(nil, 5<<16|30)
	d = binary.BigEndian.AppendUint32(d, 1_000_000) // uptime
	d = binary.BigEndian.AppendUint32(d, uint32(now.Unix()))
	d = append(d, make([]byte, 12)...) // nanoseconds, sequence, engine, sampling
	for i := range 30 {
		r := make([]byte, 48)
		copy(r, net.ParseIP(host4).To4())
		copy(r[4:], net.ParseIP(far4).To4())
		binary.BigEndian.PutUint32(r[16:], 10)      // packets
		binary.BigEndian.PutUint32(r[20:], 10_000)  // bytes
		binary.BigEndian.PutUint32(r[24:], 999_000) // start and end
		binary.BigEndian.PutUint32(r[28:], 999_900)
		binary.BigEndian.PutUint16(r[32:], uint16(2000+i))
		binary.BigEndian.PutUint16(r[34:], 5000)
		r[38] = 17
		d = append(d, r...)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(127, 0, 0, 1), DstIP: net.IPv4(127, 0, 0, 1)}
	udp := &layers.UDP{SrcPort: 5000, DstPort: 7777}
	udp.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(d))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(1<<16, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for range datagrams {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: now, CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	return file.Bytes()
}
