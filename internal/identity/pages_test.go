// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The pages of fixed(20): its succession fills several leaves, which a branch
// leads to.
type forgery struct {
	t    *testing.T
	file []byte
}

// find returns the first page with these flags that is in the tree.
func (f forgery) find(flags uint16) uint64 {
	for n := range uint64(len(f.file)-trailerSize) / pageSize {
		if p := f.page(n); n >= 2 && u16(p[8:]) == flags && u16(p[10:]) > 0 {
			return n
		}
	}
	f.t.Fatalf("no page has the flags %d", flags)
	return 0
}

func (f forgery) page(n uint64) []byte { return f.file[n*pageSize:][:pageSize] }

// root returns the page with the two buckets, and the entry of the second.
func (f forgery) root() (n uint64, succession []byte) {
	n = u64(f.file[32:])
	e := f.page(n)[2*boltHeader:]
	return n, e[u32(e[4:])+u32(e[8:]):]
}

func put16(b []byte, v uint16) { binary.NativeEndian.PutUint16(b, v) }
func put32(b []byte, v uint32) { binary.NativeEndian.PutUint32(b, v) }
func put64(b []byte, v uint64) { binary.NativeEndian.PutUint64(b, v) }

// metaSum gives both meta pages the checksums that they should have.
func metaSum(file []byte) {
	for i := range 2 {
		meta := file[i*pageSize+boltMagicAt:][:64]
		sum := fnv.New64a()
		sum.Write(meta[:56])
		put64(meta[56:], sum.Sum64())
	}
}

// Without the check the branch that leads to itself and the bucket that holds a
// branch end the process for want of memory.
func TestAForgedTreeIsRefusedBeforeBboltReadsIt(t *testing.T) {
	for name, c := range map[string]struct {
		id    int
		forge func(f forgery)
		want  string
	}{
		"a branch that leads to itself": {20, func(f forgery) {
			n := f.find(branchPage)
			put64(f.page(n)[16+8:], n)
		}, "is not where"},
		"an empty branch": {20, func(f forgery) {
			put16(f.page(f.find(branchPage))[10:], 0)
		}, "neither a branch nor a leaf"},
		"a bucket that holds a branch": {0, func(f forgery) {
			_, bucket := f.root()
			put16(bucket[boltHeader+8:], branchPage)
		}, "a bucket is cut short"},
		"two ways to a page": {20, func(f forgery) {
			b := f.page(f.find(branchPage))
			copy(b[32+8:][:8], b[16+8:])
		}, "is not where"},
		"a way back to the root": {20, func(f forgery) {
			n, bucket := f.root()
			put64(bucket, n)
		}, "is not where"},
		"a way to a meta page": {20, func(f forgery) {
			put64(f.page(f.find(branchPage))[16+8:], 1)
		}, "is not where"},
		"a way out of the file": {20, func(f forgery) {
			put64(f.page(f.find(branchPage))[16+8:], uint64(len(f.file)/pageSize))
		}, "is not where"},
		"a way round the address space": {20, func(f forgery) {
			put64(f.page(f.find(branchPage))[16+8:], 1<<63)
		}, "is not where"},
		"a way to the free pages": {20, func(f forgery) {
			put64(f.page(f.find(branchPage))[16+8:], f.find(16))
		}, "neither a branch nor a leaf"},
		"a page that goes on behind the file": {20, func(f forgery) {
			put32(f.page(f.find(leafPage))[12:], 1<<32-1)
		}, "is cut short"},
		"a page of more entries than fit": {20, func(f forgery) {
			put16(f.page(f.find(leafPage))[10:], 64)
		}, "no room for 64"},
		"an entry outside of its page": {20, func(f forgery) {
			put32(f.page(f.find(leafPage))[16+4:], 1<<32-1)
		}, "an entry outside"},
		"a key outside of its branch": {20, func(f forgery) {
			put32(f.page(f.find(branchPage))[16+4:], 1<<32-1)
		}, "a key outside"},
		"a bucket cut short": {20, func(f forgery) {
			n, _ := f.root()
			put32(f.page(n)[2*boltHeader+12:], 15)
		}, "a bucket is cut short"},
		"a bucket without its page": {0, func(f forgery) {
			n, _ := f.root()
			put32(f.page(n)[2*boltHeader+12:], 31)
		}, "a bucket is cut short"},
		"a root out of the file": {0, func(f forgery) {
			put64(f.file[32:], 1<<20)
			put64(f.file[pageSize+32:], 1<<20)
		}, "is not where"},
		"pages of another size":    {0, func(f forgery) { put32(f.file[24:], 4096) }, "meta page 0"},
		"another version of bbolt": {0, func(f forgery) { put32(f.file[pageSize+20:], 3) }, "meta page 1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := forgery{t, encoded(t, fixed(c.id))}
			c.forge(f)
			metaSum(f.file)
			s := Open(t.TempDir())
			put(t, s, resealed(f.file))
			_, err := s.Load()
			if damaged(t, s, err) && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestAMetaPageWhoseChecksumDoesNotFitIsRefused(t *testing.T) {
	for i := range 2 {
		file := encoded(t, fixed(0))
		file[i*pageSize+48]++
		if _, err := decode(resealed(file)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("meta page %d", i)) {
			t.Errorf("meta page %d: %v", i, err)
		}
	}
}

// Damage of every kind behind checksums that fit, as no medium makes it.
func TestDamageBehindAChecksumThatFitsEndsInAnErrorOrTheKey(t *testing.T) {
	variants := 6000
	if testing.Short() {
		variants = 600
	}
	var at atomic.Int64
	defer watch(t, &at)()
	files, pristine := map[int][]byte{}, map[int]*Identity{}
	sizes := []int{0, 1, 2, 20}
	for _, n := range sizes {
		pristine[n] = fixed(n)
		files[n] = encoded(t, pristine[n])
	}
	refused := 0
	for v := range variants {
		at.Store(int64(v))
		rng := rand.New(rand.NewPCG(1, uint64(v)))
		n := sizes[v%len(sizes)]
		file := append([]byte(nil), files[n]...)
		body := file[:len(file)-trailerSize]
		for range 1 + rng.IntN(3) {
			spoil(rng, body)
		}
		if v%8 < 4 { // so that damaged meta pages get through as well
			metaSum(file)
		}
		id, err := decode(resealed(file))
		switch {
		case err == nil && id.Public() != pristine[n].Public():
			t.Errorf("variant %d: another key", v)
		case err != nil && id != nil:
			t.Errorf("variant %d: a key with the error %v", v, err)
		case err != nil:
			refused++
			// A fault that was caught: it is not to get so far.
			if strings.Contains(err.Error(), "runtime error") {
				t.Errorf("variant %d: %v", v, err)
			}
		}
	}
	t.Logf("%d of %d refused", refused, variants)
	if refused < variants/4 || refused == variants {
		t.Errorf("%d of %d variants are refused; they do not prove much", refused, variants)
	}
}

// spoil does one thing to a database that may mislead its reader.
func spoil(rng *rand.Rand, db []byte) {
	pages := len(db) / pageSize
	page := db[rng.IntN(pages)*pageSize:][:pageSize]
	at := rng.IntN(pageSize)
	if rng.IntN(2) == 0 {
		at = rng.IntN(96) // where numbers of pages, counts and sizes are
	}
	switch rng.IntN(7) {
	case 0:
		page[at] = byte(rng.Uint32())
	case 1:
		page[at] ^= 1 << rng.IntN(8)
	case 2: // the number of a page that is there, in a place for one
		put64(page[at&^7:], rng.Uint64N(uint64(pages)))
	case 3:
		put32(page[at&^3:], rng.Uint32()>>rng.IntN(32))
	case 4:
		put16(page[at&^1:], uint16(1)<<rng.IntN(5))
	case 5: // a page in the place of another
		copy(page, db[rng.IntN(pages)*pageSize:][:pageSize])
	case 6: // a sector that is lost
		clear(page[at&^511:][:512])
	}
}

// watch ends the program, with the number of the variant, if one takes a minute
// or the heap has 512 MB: a loop in bbolt is endless, and cannot be stopped
// otherwise.
func watch(t *testing.T, at *atomic.Int64) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		last, since := int64(-1), time.Now()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if now := at.Load(); now != last {
				last, since = now, time.Now()
			}
			if metrics.Read(heap); heap[0].Value.Uint64() > 512<<20 || time.Since(since) > time.Minute {
				panic(fmt.Sprintf("variant %d: %d bytes, %v", last, heap[0].Value.Uint64(), time.Since(since)))
			}
		}
	}()
	return func() { close(done) }
}
