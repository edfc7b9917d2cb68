// SPDX-License-Identifier: BSD-3-Clause

package tracer

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/overflowd/overflowd/internal/flow"
)

// A vector is a file of testdata/tracer: a header of "name: value" lines, an
// empty line, and a line or the hexadecimal digits of a datagram.
type vector struct {
	expect, form string
	payload      []byte
	secret       []byte // of the recipient of the sealed form
}

func vectors(t testing.TB) map[string]vector {
	files, err := filepath.Glob("../../testdata/tracer/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	all := make(map[string]vector)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		head, payload, _ := bytes.Cut(text, []byte("\n\n"))
		v := vector{payload: bytes.TrimSuffix(payload, []byte("\n"))}
		for _, line := range strings.Split(string(head), "\n") {
			switch name, value, _ := strings.Cut(line, ": "); name {
			case "expect":
				v.expect = value
			case "form":
				v.form = value
			case "secret":
				if v.secret, err = hex.DecodeString(value); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
			}
		}
		if v.form != "line" {
			if v.payload, err = hex.DecodeString(strings.ReplaceAll(string(v.payload), "\n", "")); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		all[filepath.Base(file)] = v
	}
	return all
}

func (v vector) open() (*Message, error) {
	parse, b := ParseLine, v.payload
	if v.form != "line" {
		parse = ParseDatagram
	}
	if v.form == "sealed" {
		key, err := ecdh.X25519().NewPrivateKey(v.secret)
		if err != nil {
			return nil, err
		}
		if b, err = (Openers{key}).Open(b); err != nil {
			return nil, err
		}
	}
	s, err := parse(b)
	if err != nil {
		return nil, err
	}
	return s.Open()
}

func TestVectors(t *testing.T) {
	seen := map[string]int{}
	for name, v := range vectors(t) {
		_, err := v.open()
		verdict := "valid"
		if err != nil {
			verdict = "invalid"
		}
		if verdict != v.expect {
			t.Errorf("%s: %s (%v), expected %s", name, verdict, err, v.expect)
		}
		seen[verdict]++
	}
	if seen["valid"] < 10 || seen["invalid"] < 30 {
		t.Errorf("vectors: %v", seen)
	}
}

// TestEveryChangedByteOfAValidTracerIsNoticed flips each bit of each byte: of
// datagrams all must be refused, of lines all but those that do not change what
// the line says.
func TestEveryChangedByteOfAValidTracerIsNoticed(t *testing.T) {
	for name, v := range vectors(t) {
		if v.expect != "valid" || len(v.payload) > 1300 {
			continue
		}
		want, _ := v.open()
		step := 1
		if testing.Short() || raceEnabled {
			step = 7
		}
		for i := 0; i < 8*len(v.payload); i += step {
			c := v
			c.payload = bytes.Clone(v.payload)
			c.payload[i/8] ^= 1 << (i % 8)
			got, err := c.open()
			if err != nil {
				continue
			}
			if v.form != "line" {
				t.Fatalf("%s: bit %d changed and still valid", name, i)
			}
			if diff := cmp.Diff(want, got, compareAddr); diff != "" {
				t.Fatalf("%s: bit %d changed, still valid and says something else:\n%s", name, i, diff)
			}
		}
	}
}

var compareAddr = cmpopts.EquateComparable(netip.Addr{})

func TestTheOriginalsTracersSayWhatTheyShow(t *testing.T) {
	m, err := vectors(t)["original-4.txt"].open()
	if err != nil {
		t.Fatal(err)
	}
	if m.Flow.SrcAddr().String() != "3.138.170.99" || m.Flow.DstAddr().String() != "122.166.14.93" || m.Flow.Protocol != 47 ||
		m.Flow.Packets != 60572 || m.Flow.Bytes != 63671628 || m.Time != 1477778027256 || m.SourceType != "Netflow" ||
		m.Flow.Source.Version != 5 || m.Class != "INFORMATIONAL" || m.Info != "FLOWSEEN" || m.To.IsValid() {
		t.Errorf("%+v", m)
	}
}

func testKey(fill byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{fill}, 32))
}

func testTracer(src, dst string) Tracer {
	r := flow.Record{Known: 1<<8 - 1, Source: flow.Source{Protocol: flow.NetFlow, Version: 5}, TOS: 1, TCPFlags: 2, TTL: 3,
		Interval: 4, Packets: 5, Bytes: math.MaxUint64, Start: 6_000, End: 7_000}
	a := netip.MustParseAddr(src)
	r.Key = flow.Key{SrcPort: 8, DstPort: 65535, Protocol: 17, Family: flow.IPv6}
	if a.Is4() {
		r.Key.Family = flow.IPv4
	}
	copy(r.Src[:], a.AsSlice())
	copy(r.Dst[:], netip.MustParseAddr(dst).AsSlice())
	return Tracer{Flow: r, Time: 1_790_000_000_001, Contact: Contact{Email: "a@b.c", Identity: "\"\\\x7fé😀\u2028", URL: "https://x/", ASN: 1<<32 - 1},
		Rate: 1e-9, Selected: 9, Held: 8, To: a, Nonce: [8]byte{0xff, 1}, Seq: math.MaxUint64}
}

func TestWhatIsBuiltIsRead(t *testing.T) {
	key := testKey(2)
	e := Endorse(testKey(1), PublicKey(key.Public().(ed25519.PublicKey)), 1_700_000_000)
	full := testTracer("2001:db8::1", "2001:db8::2")
	full.Succeeds = &e
	bare := testTracer("192.0.2.1", "192.0.2.2")
	bare.Contact, bare.To, bare.Held, bare.Flow.Interval = Contact{}, netip.Addr{}, 0, 0
	f := &bare.Flow
	f.Known, f.SrcPort, f.DstPort, f.TOS, f.TCPFlags, f.TTL, f.Packets, f.Bytes, f.Start, f.End = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	for name, want := range map[string]Tracer{"all members": full, "none that may be missing": bare, "IPv4": testTracer("192.0.2.1", "192.0.2.2")} {
		s := Sign(key, want.AppendMessage(nil))
		if !json.Valid(s.Message) {
			t.Errorf("%s: encoding/json refuses %s", name, s.Message)
		}
		line, err := ParseLine(s.AppendLine(nil))
		if err != nil {
			t.Fatalf("%s: line: %v", name, err)
		}
		datagram, err := ParseDatagram(s.AppendDatagram(nil))
		if err != nil {
			t.Fatalf("%s: datagram: %v", name, err)
		}
		for form, s := range map[string]Signed{"line": line, "datagram": datagram} {
			m, err := s.Open()
			if err != nil {
				t.Fatalf("%s, %s: %v", name, form, err)
			}
			if diff := cmp.Diff(want, m.Tracer, compareAddr); diff != "" {
				t.Errorf("%s, %s (-built +read):\n%s", name, form, diff)
			}
		}
	}
}

func TestTheRateIsWrittenAsAnyReaderTakesIt(t *testing.T) {
	for _, rate := range []float64{1, 0.001, 1e-6, 1e-9, 1.0 / 3, 5e-324} {
		tr := testTracer("192.0.2.1", "192.0.2.2")
		tr.Rate = rate
		var m struct{ Sampling struct{ Rate json.Number } }
		if err := json.Unmarshal(tr.AppendMessage(nil), &m); err != nil {
			t.Fatal(err)
		}
		if got, err := strconv.ParseFloat(string(m.Sampling.Rate), 64); err != nil || got != rate || strings.ContainsAny(string(m.Sampling.Rate), "eE") {
			t.Errorf("%v became %s", rate, m.Sampling.Rate)
		}
	}
}

func TestAnEndorsementIsOfOneKeyForAnotherAtATime(t *testing.T) {
	old, next := testKey(1), PublicKey(testKey(2).Public().(ed25519.PublicKey))
	e := Endorse(old, next, 5)
	if !e.Valid() {
		t.Fatal("it is not valid")
	}
	for name, change := range map[string]func(*Endorsement){
		"another successor":   func(e *Endorsement) { e.New[0] ^= 1 },
		"another predecessor": func(e *Endorsement) { e.Old = next },
		"another time":        func(e *Endorsement) { e.Since++ },
		"another signature":   func(e *Endorsement) { e.Signature[63] ^= 1 },
		"a weak predecessor":  func(e *Endorsement) { e.Old, e.Signature = PublicKey{1}, [64]byte{1} },
	} {
		c := e
		if change(&c); c.Valid() {
			t.Errorf("valid with %s", name)
		}
	}
}

func TestErrorsTellFormsFromForgeries(t *testing.T) {
	all := vectors(t)
	for name, want := range map[string]error{
		"datagram-magic.txt": ErrForm, "datagram-header-only.txt": ErrForm, "datagram-too-large.txt": ErrTooLarge,
		"datagram-message.txt": ErrSignature, "key-small-order.txt": ErrSignature, "signature-malleated.txt": ErrSignature,
		"message-version.txt": ErrMessage, "successor-stolen.txt": ErrMessage,
		"line-outside.txt": ErrOutside, "line-base64-bits.txt": ErrForm, "line-unsigned.txt": ErrForm,
		"sealed-tag.txt": ErrSealed, "sealed-key.txt": ErrSealed, "sealed-too-large.txt": ErrTooLarge, "sealed-twice.txt": ErrForm, "sealed-signature.txt": ErrSignature,
	} {
		if _, err := all[name].open(); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, err := ParseLine(bytes.Repeat([]byte(" "), MaxLine+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a line too long: %v", err)
	}
	if _, err := ParseLine([]byte(strings.Repeat(`{"a":`, 3000))); !errors.Is(err, errDepth) {
		t.Errorf("a line too deep: %v", err)
	}
	if _, err := ParseLine([]byte(`{"a":[` + strings.Repeat("0,", 5000) + "0]}")); !errors.Is(err, errMany) {
		t.Errorf("a line of too many values: %v", err)
	}
}

// TestPyNaClAgrees runs the second implementation over the vectors and over
// tracers made here.
func TestPyNaClAgrees(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import nacl").Run(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("python3-nacl is missing: %v", err)
		}
		t.Skip("python3-nacl is missing")
	}
	files, _ := filepath.Glob("../../testdata/tracer/*.txt")
	if out, err := exec.Command(python, append([]string{"../../testdata/tracer/check.py", "vectors"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("vectors: %s", out)
	}
	var lines bytes.Buffer
	for i := range 50 {
		tr := testTracer("2001:db8::1", "2001:db8::2")
		tr.Seq = uint64(i)
		s := Sign(testKey(byte(i)), tr.AppendMessage(nil))
		lines.Write(append(s.AppendLine(nil), '\n'))
	}
	cmd := exec.Command(python, "../../testdata/tracer/check.py", "lines")
	cmd.Stdin = &lines
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "50\n" {
		t.Errorf("our lines: %v %s", err, out)
	}
}

// fromStandard turns what encoding/json read into our value.
func fromStandard(x any) value {
	switch x := x.(type) {
	case nil:
		return value{kind: jsonNull}
	case bool:
		if x {
			return value{kind: jsonTrue}
		}
		return value{kind: jsonFalse}
	case json.Number:
		return value{kind: jsonNumber, str: string(x)}
	case string:
		return value{kind: jsonString, str: x}
	case []any:
		v := value{kind: jsonArray}
		for _, e := range x {
			v.elems = append(v.elems, fromStandard(e))
		}
		return v
	case map[string]any:
		v := value{kind: jsonObject}
		for name, e := range x {
			v.members = append(v.members, member{name, fromStandard(e)})
		}
		return v
	}
	panic(reflect.TypeOf(x))
}

func FuzzJSON(f *testing.F) {
	for _, v := range vectors(f) {
		if v.form == "line" {
			f.Add(v.payload)
		}
	}
	f.Add([]byte(`{"a":[-0.5e+7,true,false,null,{}],"b\u00e9\ud83d\ude00":"\/\b\f\n\r\t"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseObject(text)
		if err != nil {
			return
		}
		// What passes here passes there, with the same meaning. The reverse
		// does not hold: we are stricter.
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var x any
		if err := d.Decode(&x); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if want := fromStandard(x); !want.equal(got) {
			t.Errorf("%q: %+v, encoding/json has %+v", text, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseDatagram(b); err == nil {
			if !bytes.Equal(s.AppendDatagram(nil), b) {
				t.Error("a datagram changes when it is written again")
			}
			s.Open()
		}
		if s, err := ParseLine(b); err == nil {
			if again, err := ParseLine(s.AppendLine(nil)); err != nil || !reflect.DeepEqual(again, s) {
				t.Errorf("a line changes when it is written again: %v", err)
			}
			s.Open()
		}
	})
}

func BenchmarkSign(b *testing.B) {
	tr, key := testTracer("192.0.2.1", "192.0.2.2"), testKey(1)
	var buf []byte
	for b.Loop() {
		buf = tr.AppendMessage(buf[:0])
		Sign(key, buf)
	}
}

func TestEvidenceIsReadAsItWasWritten(t *testing.T) {
	for _, c := range []struct {
		evidence Evidence
		text     string
		class    string
	}{
		{Evidence{}, "", Informational},
		{Evidence{Spoofed: "unknown"}, `"evidence":{"spoofed":"unknown"}`, Informational},
		{Evidence{Spoofed: "no", Method: "prefix", Point: "lan"}, `"evidence":{"spoofed":"no","method":"prefix","point":"lan"}`, Informational},
		{Evidence{Spoofed: "yes", Method: "special", Point: "wan", Suspicion: []string{"special", "rate"}},
			`"evidence":{"spoofed":"yes","method":"special","point":"wan","suspicion":["special","rate"]}`, Suspicious},
		{Evidence{Suspicion: []string{"syn"}}, `"evidence":{"suspicion":["syn"]}`, Suspicious},
	} {
		x := Tracer{Flow: flow.Record{Key: flow.Key{Family: flow.IPv4, Src: [16]byte{45, 83}, Dst: [16]byte{91, 200}}}, Time: 1e12, Rate: 1e-4, Selected: 1,
			Evidence: c.evidence, Contact: Contact{Email: "abuse@example.net", Role: "abuse"}}
		message := x.AppendMessage(nil)
		if !strings.Contains(string(message), c.text) || strings.Contains(string(message), "evidence") != (c.text != "") {
			t.Errorf("%s has no %s", message, c.text)
		}
		signed := Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), message)
		m, err := signed.Open()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.evidence, m.Evidence); d != "" || m.Class != c.class || m.Contact != x.Contact {
			t.Errorf("class %s, contact %+v, evidence (-want +got)\n%s", m.Class, m.Contact, d)
		}
	}
	for _, bad := range []string{`{"spoofed":1}`, `{"suspicion":"syn"}`, `{"suspicion":[1]}`} {
		x := Tracer{Flow: flow.Record{Key: flow.Key{Family: flow.IPv4}}, Time: 1e12, Rate: 1e-4, Selected: 1}
		message := strings.Replace(string(x.AppendMessage(nil)), `"sampling"`, `"evidence":`+bad+`,"sampling"`, 1)
		signed := Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), []byte(message))
		if _, err := signed.Open(); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	strange := Tracer{Flow: flow.Record{Key: flow.Key{Family: flow.IPv4}}, Time: 1e12, Rate: 1e-4, Selected: 1, Evidence: Evidence{Spoofed: "<b>perhaps", Method: "urpf"}}
	signed := Sign(ed25519.NewKeyFromSeed(make([]byte, 32)), strange.AppendMessage(nil))
	if m, err := signed.Open(); err != nil || m.Spoofed != "" || m.Method != "urpf" {
		t.Errorf("an unknown word: %v, %+v", err, m.Evidence)
	}
}
