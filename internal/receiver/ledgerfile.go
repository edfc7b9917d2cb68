// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/tracer"
)

// The ledger's file is a bbolt database as identity.Pack makes it: one bucket of
// keys (32 bytes) with their entries, and one with the format. Integers are
// big-endian; texts have their length before them, in 2 bytes.
var (
	bucketKeys  = []byte("keys")
	bucketForm  = []byte("form")
	keyFormat   = []byte("format")
	ledgerForm  = []byte{1}
	errEntry    = errors.New("an entry is malformed")
	errNewForm  = errors.New("a newer version of the program wrote it")
	errNoBucket = errors.New("a bucket is missing")
)

// A row is an entry as it stands in the file.
type row struct {
	key   tracer.PublicKey
	value []byte
}

// rows returns at most so many entries: those with standing, and then those that
// were heard of most often.
func (l *Ledger) rows(most int) []row {
	list := make([]*Entry, 0, len(l.standing)+len(l.fresh))
	l.All(func(e *Entry) { list = append(list, e) })
	if len(list) > most {
		slices.SortFunc(list, func(a, b *Entry) int {
			return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(b.Count, a.Count), cmp.Compare(b.Last, a.Last))
		})
		list = list[:most]
	}
	rows := make([]row, len(list))
	for i, e := range list {
		rows[i] = row{e.Key, e.append(nil)}
	}
	return rows
}

// pack returns the file of a ledger.
func pack(rows []row) ([]byte, error) {
	slices.SortFunc(rows, func(a, b row) int { return slices.Compare(a.key[:], b.key[:]) }) // bbolt fills its pages best in order
	return identity.Pack(func(tx *bbolt.Tx) error {
		form, err := tx.CreateBucket(bucketForm)
		if err != nil {
			return err
		}
		if err := form.Put(keyFormat, ledgerForm); err != nil {
			return err
		}
		keys, err := tx.CreateBucket(bucketKeys)
		if err != nil {
			return err
		}
		keys.FillPercent = 1
		for _, r := range rows {
			if err := keys.Put(r.key[:], r.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// SaveLedger writes the ledger's file, with at most so many keys, unless nothing
// was noted since it was written. A cut at any point leaves the old file or the
// new one. It must not be called twice at once.
func (r *Receiver) SaveLedger(path string, most int) error {
	var rows []row
	var changed uint64
	r.Do(func(l *Ledger) {
		if changed = l.Changed; changed != l.saved {
			rows = l.rows(most)
		}
	})
	if rows == nil {
		return nil
	}
	file, err := pack(rows)
	if err == nil {
		err = identity.Replace(path, file)
	}
	if err != nil {
		return fmt.Errorf("write the ledger %s: %w", path, err)
	}
	r.Do(func(l *Ledger) { l.saved = changed })
	return nil
}

// rank of an entry in the order of what is worth keeping.
func rank(e *Entry) int {
	if e.standing && e.Level() == NewKey {
		return 1
	}
	return 2 * int(e.Level())
}

// Unpack reads the file of a ledger into one that is empty. Past its size it
// keeps none.
func (l *Ledger) Unpack(file []byte) error {
	var list []*Entry
	err := identity.Unpack(file, func(tx *bbolt.Tx) error {
		form, keys := tx.Bucket(bucketForm), tx.Bucket(bucketKeys)
		if form == nil || keys == nil {
			return errNoBucket
		}
		if string(form.Get(keyFormat)) != string(ledgerForm) {
			return errNewForm
		}
		return keys.ForEach(func(k, v []byte) error {
			if len(k) != len(tracer.PublicKey{}) {
				return errEntry
			}
			e, err := parseEntry(v)
			if err != nil {
				return err
			}
			e.Key = tracer.PublicKey(k)
			list = append(list, e)
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, e := range list {
		to := &l.fresh
		if e.standing {
			to = &l.standing
		}
		if len(*to) < l.most {
			e.index = len(*to)
			*to = append(*to, e)
			l.entries[e.Key] = e
		}
	}
	return nil
}

// Flags of an entry.
const (
	flagPinned = 1 << iota
	flagStanding
)

// append appends all of the entry but its key.
func (e *Entry) append(b []byte) []byte {
	flags := byte(0)
	if e.Pinned {
		flags |= flagPinned
	}
	if e.standing {
		flags |= flagStanding
	}
	b = append(b, flags, byte(len(e.Paths)))
	for _, n := range e.numbers() {
		b = binary.AppendUvarint(b, *n)
	}
	for _, n := range e.times() {
		b = binary.BigEndian.AppendUint64(b, uint64(*n))
	}
	for _, p := range e.Paths {
		addr := p.Network.Addr().As16()
		b = append(b, addr[:]...)
		b = append(b, byte(p.Network.Bits()), byte(p.Network.Addr().BitLen()))
		b = binary.BigEndian.AppendUint16(b, uint16(p.Hops))
		b = binary.BigEndian.AppendUint64(b, uint64(p.Last))
	}
	for _, s := range []string{e.Contact.Email, e.Contact.Identity, e.Contact.URL, keyText(e.Predecessor), keyText(e.Successor)} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint32(b, e.Contact.ASN)
}

func keyText(k tracer.PublicKey) string {
	if k == (tracer.PublicKey{}) {
		return ""
	}
	return string(k[:])
}

func (e *Entry) times() []*int64 { return []*int64{&e.First, &e.Last, &e.Steady, &e.Succeeded} }

func (e *Entry) numbers() []*uint64 {
	return []*uint64{&e.Count, &e.Seen, &e.Foreign, &e.Conflicts, &e.Days, &e.Networks}
}

// entryReader takes an entry apart and remembers that it was too short.
type entryReader struct {
	b   []byte
	bad bool
}

func (r *entryReader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func parseEntry(b []byte) (*Entry, error) {
	r := entryReader{b: b}
	e := &Entry{}
	head := r.take(2)
	e.Pinned, e.standing = head[0]&flagPinned != 0, head[0]&flagStanding != 0
	paths := int(head[1])
	for _, n := range e.numbers() {
		v, size := binary.Uvarint(r.b)
		if size <= 0 {
			return nil, errEntry
		}
		*n, r.b = v, r.b[size:]
	}
	for _, t := range e.times() {
		*t = int64(binary.BigEndian.Uint64(r.take(8)))
	}
	for range min(paths, maxPaths) {
		p := r.take(28)
		addr := netip.AddrFrom16([16]byte(p[:16]))
		if p[17] == 32 {
			addr = addr.Unmap()
		}
		n := netip.PrefixFrom(addr, int(p[16]))
		if !n.IsValid() {
			return nil, errEntry
		}
		e.Paths = append(e.Paths, Path{n, int16(binary.BigEndian.Uint16(p[18:])), int64(binary.BigEndian.Uint64(p[20:]))})
	}
	var texts [5]string
	for i := range texts {
		texts[i] = string(r.take(int(binary.BigEndian.Uint16(r.take(2)))))
	}
	e.Contact = tracer.Contact{Email: texts[0], Identity: texts[1], URL: texts[2], ASN: binary.BigEndian.Uint32(r.take(4))}
	for i, k := range []*tracer.PublicKey{&e.Predecessor, &e.Successor} {
		if s := texts[3+i]; len(s) == len(k) {
			copy(k[:], s)
		} else if s != "" {
			return nil, errEntry
		}
	}
	if r.bad || len(r.b) != 0 || paths > maxPaths || head[0]&^(flagPinned|flagStanding) != 0 {
		return nil, errEntry
	}
	return e, nil
}

// maxLedgerFile is far more than any ledger takes.
const maxLedgerFile = 1 << 30

// LoadLedger reads a ledger's file into a new ledger for so many keys. If there is
// no file the ledger is empty. If it cannot be read, the ledger is empty too, and
// there is an error: what was known of keys is lost, which is a pity and no harm.
func LoadLedger(path string, most int) (*Ledger, error) {
	l := NewLedger(most)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil && info.Size() > maxLedgerFile {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	var file []byte
	if err == nil {
		file, err = os.ReadFile(path)
	}
	if err == nil {
		err = l.Unpack(file)
	}
	if err != nil {
		return NewLedger(most), fmt.Errorf("read the ledger %s: %w", path, err)
	}
	return l, nil
}
