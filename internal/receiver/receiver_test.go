// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/tracer"
)

var (
	mine   = netip.MustParseAddr("203.0.113.5")
	router = netip.MustParseAddr("198.51.100.1")
)

// inTime runs a test in a bubble, on a day on which tracers are made.
func inTime(t *testing.T, f func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)))
		f(t)
	})
}

func key(n uint64) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint64(seed, n)
	return ed25519.NewKeyFromSeed(seed)
}

func public(k ed25519.PrivateKey) tracer.PublicKey {
	return tracer.PublicKey(k.Public().(ed25519.PublicKey))
}

// made returns a tracer about a flow to us, made now; number tells it from others.
func made(number uint64) *tracer.Tracer {
	t := &tracer.Tracer{Time: time.Now().UnixMilli(), Rate: 1e-6, Selected: 1, To: mine, Seq: number,
		Contact: tracer.Contact{Email: "abuse@example.net"}}
	t.Flow.Family, t.Flow.Protocol, t.Flow.SrcPort, t.Flow.DstPort = flow.IPv4, 17, 53, 80
	t.Flow.Src, t.Flow.Dst = [16]byte{192, 0, 2, 7}, [16]byte{203, 0, 113, 5}
	t.Flow.Known = flow.HasPorts | flow.HasPackets | flow.HasBytes
	t.Flow.Packets, t.Flow.Bytes = 1000, 100_000
	binary.BigEndian.PutUint64(t.Nonce[:], number+1)
	return t
}

func datagram(k ed25519.PrivateKey, t *tracer.Tracer) []byte {
	s := tracer.Sign(k, t.AppendMessage(nil))
	return s.AppendDatagram(nil)
}

// bench is a receiver with what it has taken.
type bench struct {
	*Receiver
	t     *testing.T
	taken []*Received
}

func newBench(t *testing.T, change ...func(*Options)) *bench {
	b := &bench{t: t}
	o := Options{Mine: func(a netip.Addr) bool { return a == mine }, Ledger: NewLedger(64), Rates: [3]float64{1000, 100, 100}, Queue: 256,
		Replays: 4096, Networks: 64, Workers: 1, Sink: func(x *Received) { b.taken = append(b.taken, x) }}
	for _, f := range change {
		f(&o)
	}
	b.Receiver = New(o)
	return b
}

// offer offers a datagram as if it came from a router and over so many hops, and
// returns what became of it.
func (b *bench) offer(d []byte, from netip.Addr, hops int) Reason {
	before := [Reasons]uint64{}
	for i := range before {
		before[i] = b.Counters.Results[i].Load()
	}
	b.Offer(d, netip.AddrPortFrom(from, 40000), hops, time.Now())
	for l := range b.queues {
		select {
		case c := <-b.queues[l]:
			_, why := b.verify(&c.offer)
			b.count(why)
			b.free <- c
		default:
		}
	}
	for i := range before {
		if b.Counters.Results[i].Load() != before[i] {
			return Reason(i)
		}
	}
	b.t.Helper()
	b.t.Fatal("a datagram was not counted")
	return 0
}

func TestWhatIsRefused(t *testing.T) {
	inTime(t, func(t *testing.T) {
		good := func() []byte { return datagram(key(1), made(1)) }
		with := func(change func(*tracer.Tracer)) []byte {
			m := made(1)
			change(m)
			return datagram(key(1), m)
		}
		malleated := good()
		s := new(big.Int).SetBytes(reversed(malleated[8+32+32 : 8+32+64]))
		order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
		copy(malleated[8+32+32:], reversed(s.Add(s, order).FillBytes(make([]byte, 32))))
		for name, c := range map[string]struct {
			datagram []byte
			want     Reason
		}{
			"nothing":                       {nil, Form},
			"another magic":                 {append([]byte("OVERFLW2"), good()[8:]...), Form},
			"a header alone":                {good()[:104], Form},
			"one byte too many":             {append(good(), make([]byte, tracer.MaxDatagram)...), Form},
			"no JSON":                       {append(good()[:104], "hello"...), Form},
			"a bit of the message changed":  {flipped(good(), 250), Signature},
			"a bit of the signature":        {flipped(good(), 60), Signature},
			"another's key":                 {append(append([]byte("OVERFLW1"), datagram(key(2), made(1))[8:40]...), good()[40:]...), Signature},
			"a signature with S+L":          {malleated, Signature},
			"a key of small order":          {append(append([]byte("OVERFLW1"), append([]byte{1}, make([]byte, 31)...)...), good()[40:]...), Signature},
			"for a neighbour":               {with(func(m *tracer.Tracer) { m.To = netip.MustParseAddr("203.0.113.6") }), NotMine},
			"for us in a mapped address":    {with(func(m *tracer.Tracer) { m.To = netip.MustParseAddr("::ffff:203.0.113.5") }), NotMine},
			"for nobody":                    {with(func(m *tracer.Tracer) { m.To = netip.Addr{} }), NotMine},
			"from more than 5 minutes on":   {with(func(m *tracer.Tracer) { m.Time += window + 1 }), Future},
			"of the day before":             {with(func(m *tracer.Tracer) { m.Time -= day + 1 }), Old},
			"without a nonce":               {with(func(m *tracer.Tracer) { m.Nonce = [8]byte{} }), Message},
			"of a rate above 1":             {with(func(m *tracer.Tracer) { m.Rate = 2 }), Message},
			"about a flow that is not ours": {with(func(m *tracer.Tracer) { m.Flow.Dst[3]++ }), NotEnd},
			"sealed":                        {append([]byte("OVERFLWS"), make([]byte, 200)...), Sealed},
		} {
			b := newBench(t)
			if got := b.offer(c.datagram, router, 3); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			if len(b.taken) != 0 {
				t.Errorf("%s: was taken", name)
			}
			if standing, fresh := b.ledger.Len(); standing+fresh != 0 {
				t.Errorf("%s: is in the ledger", name)
			}
		}
		b := newBench(t)
		if got := b.offer(good(), router, 3); got != Taken || len(b.taken) != 1 || b.taken[0].Hops != 3 || b.taken[0].Stale || b.taken[0].Contact.Email != "abuse@example.net" {
			t.Fatalf("a good one: %s, %+v", got, b.taken)
		}
		if got := b.offer(good(), router, 3); got != Replay || b.Counters.Verified.Load() != 1 {
			t.Errorf("the same again: %s, %d signatures verified", got, b.Counters.Verified.Load())
		}
		if got := b.offer(datagram(key(2), made(1)), router, 3); got != Taken {
			t.Errorf("the nonce of another key: %s", got)
		}
	})
}

func reversed(b []byte) []byte {
	r := slices.Clone(b)
	slices.Reverse(r)
	return r
}

func flipped(b []byte, bit int) []byte {
	b[bit] ^= 1
	return b
}

// TestALineIsTakenByWhatIsSigned: what stands outside may not differ.
func TestALineIsTakenByWhatIsSigned(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t)
		s := tracer.Sign(key(1), made(1).AppendMessage(nil))
		line := s.AppendLine(nil)
		submit := func(line []byte) error {
			s, err := tracer.ParseLine(line)
			if err != nil {
				return err
			}
			_, err = b.Submit(s, router, -1, time.Now())
			return err
		}
		for name, bad := range map[string][]byte{
			"another port outside":   bytes.Replace(line, []byte(`"dport":80`), []byte(`"dport":81`), 1),
			"another key":            bytes.Replace(line, []byte(`"key":"`), []byte(`"key":"0`), 1),
			"a member added outside": bytes.Replace(line, []byte(`{"flowdata"`), []byte(`{"x":1,"flowdata"`), 1),
			"base64 of spare bits":   bytes.Replace(line, []byte(`="}}`), []byte(`"}}`), 1),
			"base64 with line ends":  bytes.Replace(line, []byte(`"signature":"`), []byte(`"signature":"\n`), 1),
		} {
			if bytes.Equal(bad, line) && name != "base64 of spare bits" {
				t.Fatalf("%s: nothing changed", name)
			}
			if bytes.Equal(bad, line) { // no padding: then the last digit has none
				bad = append(slices.Clone(line[:len(line)-3]), "A\"}}"...)
			}
			if err := submit(bad); err == nil {
				t.Errorf("%s: taken", name)
			}
		}
		if err := submit(line); err != nil {
			t.Errorf("as it was: %v", err)
		}
		if err := submit(line); err != Replay {
			t.Errorf("again: %v", err)
		}
		b64 := base64.StdEncoding.EncodeToString([]byte("x"))
		if err := submit([]byte(`{"signature":{"key":"","signature":"` + b64 + `"}}`)); err == nil {
			t.Error("nonsense was taken")
		}
	})
}

// TestLateOnesAreKeptAndDoNotCount: they are marked, and earn the key nothing.
func TestLateOnesAreKeptAndDoNotCount(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t)
		m := made(1)
		m.Time -= window + 1
		if why := b.offer(datagram(key(1), m), router, 1); why != Taken || !b.taken[0].Stale {
			t.Fatal(why)
		}
		if e := b.ledger.Find(public(key(1))); e == nil || e.Count != 0 {
			t.Errorf("%+v", e)
		}
		m = made(2)
		m.Time -= window
		if why := b.offer(datagram(key(1), m), router, 1); why != Taken || b.taken[1].Stale {
			t.Errorf("five minutes: %s, %v", why, b.taken[1].Stale)
		}
	})
}

// TestAfterARestartNothingCountsTwice: what was made before is stale.
func TestAfterARestartNothingCountsTwice(t *testing.T) {
	inTime(t, func(t *testing.T) {
		first := newBench(t)
		d := datagram(key(1), made(1))
		if why := first.offer(d, router, 1); why != Taken || first.taken[0].Stale {
			t.Fatal(why)
		}
		time.Sleep(time.Minute)
		second := newBench(t, func(o *Options) { o.Since, o.Ledger = time.Now(), first.ledger })
		if why := second.offer(d, router, 1); why != Taken || !second.taken[0].Stale {
			t.Errorf("%s, %+v", why, second.taken)
		}
		time.Sleep(time.Second)
		if why := second.offer(datagram(key(1), made(2)), router, 1); why != Taken || second.taken[1].Stale {
			t.Errorf("a new one: %s", why)
		}
		third := newBench(t)
		third.Remember(first.taken[0])
		if why := third.offer(d, router, 1); why != Replay {
			t.Errorf("one that is remembered: %s", why)
		}
	})
}

// TestAForgottenTracerRaisesTheFloor: of a key with more tracers than are
// remembered, the older ones are stale; of others none is.
func TestAForgottenTracerRaisesTheFloor(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Replays = 16 })
		first := datagram(key(1), made(0))
		quiet := datagram(key(2), made(0))
		b.offer(first, router, 1)
		b.offer(quiet, router, 1)
		for i := range uint64(40) {
			time.Sleep(time.Second)
			b.offer(datagram(key(1), made(i+1)), router, 1)
		}
		n := len(b.taken)
		if n != 42 {
			t.Fatalf("%d taken", n)
		}
		for name, d := range map[string][]byte{"its own": first, "another's": quiet} {
			if why := b.offer(d, router, 1); why != Taken || !b.taken[len(b.taken)-1].Stale {
				t.Errorf("%s, sent again: %s", name, why)
			}
		}
		time.Sleep(time.Second)
		for i, k := range []ed25519.PrivateKey{key(1), key(2), key(3)} {
			if why := b.offer(datagram(k, made(uint64(100+i))), router, 1); why != Taken || b.taken[len(b.taken)-1].Stale {
				t.Errorf("a new one: %s", why)
			}
		}
	})
}

// age gives a key standing, from a router one hop away.
func (b *bench) age(k ed25519.PrivateKey) {
	b.t.Helper()
	for i := range uint64(12) {
		m := made(1000 + i)
		if why := b.offer(datagram(k, m), router, 1); why != Taken {
			b.t.Fatalf("tracer %d of a key to be: %s", i, why)
		}
		time.Sleep(6 * time.Hour)
	}
	if e := b.ledger.Find(public(k)); e.Level() != Consistent || !e.standing {
		b.t.Fatalf("level %s after days", e.Level())
	}
}

// TestNothingCrowdsOutAKnownKey: whatever is offered meanwhile, its tracers are
// taken from where they always came.
func TestNothingCrowdsOutAKnownKey(t *testing.T) {
	garbage := func(k ed25519.PrivateKey, i uint64) []byte {
		d := datagram(k, made(1<<40+i))
		d[50] ^= 0xff
		return d
	}
	next := uint64(100)
	for name, flood := range map[string]func(i uint64) ([]byte, netip.Addr, int){
		"noise":                          func(i uint64) ([]byte, netip.Addr, int) { return []byte("OVERFLW1 hello"), router, 1 },
		"new keys of its network":        func(i uint64) ([]byte, netip.Addr, int) { next++; return datagram(key(next), made(i)), router, 1 },
		"new keys of many networks":      func(i uint64) ([]byte, netip.Addr, int) { next++; return datagram(key(next), made(i)), many(i), 9 },
		"its key, from elsewhere":        func(i uint64) ([]byte, netip.Addr, int) { return garbage(key(1), i), many(i), 1 },
		"its key and network, too far":   func(i uint64) ([]byte, netip.Addr, int) { return garbage(key(1), i), router, 2 },
		"another known key, and network": func(i uint64) ([]byte, netip.Addr, int) { return garbage(key(2), i), router, 1 },
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T) {
				b := newBench(t, func(o *Options) { o.Rates = [3]float64{100, 10, 10} })
				b.age(key(1))
				b.age(key(2))
				verified := b.Counters.Verified.Load()
				start := time.Now()
				n := uint64(0)
				for range 60 {
					for range 50 {
						d, from, hops := flood(n)
						n++
						b.offer(d, from, hops)
						time.Sleep(1037 * time.Microsecond) // never in step with the tokens
					}
					if why := b.offer(datagram(key(1), made(1<<50+n)), router, 1); why != Taken {
						t.Fatalf("after %d of the flood: %s", n, why)
					}
				}
				if most := uint64(60 + 100 + 2*time.Since(start).Seconds()*20 + 50); b.Counters.Verified.Load()-verified > most {
					t.Errorf("%d signatures were verified in %v, want at most %d", b.Counters.Verified.Load()-verified, time.Since(start), most)
				}
			})
		})
	}
}

// many returns an address of one of very many networks.
func many(i uint64) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 1})
}

// TestAForgerWhoIsWhereTheKeyIsTakesOnlyThat: the one thing that is not prevented.
func TestAForgerWhoIsWhereTheKeyIsTakesOnlyThat(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t)
		b.age(key(1))
		b.age(key(2))
		lost := 0
		for i := range uint64(500) {
			d := datagram(key(1), made(1<<40+i))
			d[50] ^= 0xff
			b.offer(d, router, 1)
			if b.offer(datagram(key(1), made(i)), router, 1) != Taken {
				lost++
			}
			if i%10 == 0 {
				if why := b.offer(datagram(key(2), made(i)), router, 1); why != Taken {
					t.Fatalf("another key: %s", why)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		if lost == 0 {
			t.Error("nothing was lost: the comment of the package says too little")
		}
	})
}

// TestAMillionNewKeys: memory stays, and so do the keys that were there.
func TestAMillionNewKeys(t *testing.T) {
	keys := uint64(1_000_000)
	if testing.Short() {
		keys = 20_000
	}
	l := NewLedger(1024)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC).UnixMilli()
	message := &tracer.Message{Tracer: *made(1)}
	public := func(n uint64) (k tracer.PublicKey) {
		binary.BigEndian.PutUint64(k[:], n)
		return k
	}
	for i := range uint64(100) { // some have standing, some were heard of a few times
		for d := range int64(4) {
			for range 3 {
				l.Note(public(i), message, router, 1, now+d*day)
			}
		}
		for range 3 {
			l.Note(public(1000+i), message, router, 1, now+3*day)
		}
	}
	if standing, _ := l.Len(); standing != 100 {
		t.Fatalf("%d keys with standing", standing)
	}
	replays := newReplayFilter(4096)
	networks := newNetworks(4096)
	add := func(i uint64) {
		at := now + 3*day + int64(i)
		e := l.Note(public(1<<40+i), message, many(i), 1, at)
		nonce := [8]byte{1}
		if networks.allows(networkOf(many(i)), time.Duration(i)) {
			networks.take(networkOf(many(i)), time.Duration(i))
		}
		if replays.add(l, e, &nonce, at, at) {
			t.Fatalf("key %d was here before", i)
		}
	}
	for i := range uint64(10_000) {
		add(i)
	}
	before := heap()
	for i := uint64(10_000); i < keys; i++ {
		add(i)
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if standing, fresh := l.Len(); standing != 100 || fresh != 1024 || len(l.entries) != 1124 {
		t.Errorf("%d with standing, %d without, %d in all", standing, fresh, len(l.entries))
	}
	kept := 0
	for i := range uint64(100) {
		if l.Find(public(i)) == nil {
			t.Errorf("key %d lost its standing", i)
		}
		if l.Find(public(1000+i)) != nil {
			kept++
		}
	}
	// The eight that are looked at are all of those now and then, at first only.
	if kept < 90 {
		t.Errorf("%d of 100 that were heard of before are left", kept)
	}
	runtime.KeepAlive(replays)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestRunVerifiesWhatIsOffered(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Workers = 2 })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() { b.Run(ctx); close(done) }()
		for i := range uint64(8) {
			b.Offer(datagram(key(1), made(i)), netip.AddrPortFrom(router, 1), 1, time.Now())
			synctest.Wait()
		}
		cancel()
		<-done
		if len(b.taken) != 8 || len(b.free) != cap(b.free) {
			t.Errorf("%d taken, %d of %d buffers back", len(b.taken), len(b.free), cap(b.free))
		}
	})
}

func TestAFullQueueRefuses(t *testing.T) {
	inTime(t, func(t *testing.T) {
		b := newBench(t, func(o *Options) { o.Queue = 16 })
		for i := range uint64(8) {
			b.Offer(datagram(key(i), made(i)), netip.AddrPortFrom(many(i), 1), 1, time.Now())
		}
		if n := b.Counters.Results[Busy].Load(); n != 4 {
			t.Errorf("%d refused", n)
		}
	})
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reasons {
		if r.Name() == "" || r.String() == "" || seen[r.Name()] || r.Error() != r.String() {
			t.Errorf("reason %d: %q, %q", r, r.Name(), r)
		}
		seen[r.Name()] = true
	}
}

// TestOfferDoesNotAllocate for what it refuses.
func TestOfferDoesNotAllocate(t *testing.T) {
	b := newBench(t)
	m := made(1)
	m.To = netip.MustParseAddr("192.0.2.200")
	now := time.Now()
	for name, d := range map[string][]byte{"noise": make([]byte, 600), "for another": datagram(key(1), m)} {
		if n := testing.AllocsPerRun(100, func() { b.Offer(d, netip.AddrPortFrom(router, 1), 1, now) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzOffer: what comes out was signed, is for us and of our flow.
func FuzzOffer(f *testing.F) {
	now := time.Now()
	corpus := 0
	for i := range uint64(3) {
		f.Add(datagram(key(i), made(i)))
		corpus++
	}
	f.Add([]byte("OVERFLWS"))
	if corpus != 3 {
		f.Fatal("no corpus")
	}
	f.Fuzz(func(t *testing.T, d []byte) {
		b := newBench(t, func(o *Options) { o.Queue, o.Replays, o.Networks = 1, 1, 1 })
		b.Offer(d, netip.AddrPortFrom(router, 1), 1, now)
		for l := range b.queues {
			if len(b.queues[l]) > 0 {
				c := <-b.queues[l]
				if x, why := b.verify(&c.offer); why == Taken {
					if x.To != mine || x.Signed.Verify() != nil || x.Flow.DstAddr() != mine && x.Flow.SrcAddr() != mine {
						t.Errorf("taken: %s", fmt.Sprint(x))
					}
				}
			}
		}
	})
}
