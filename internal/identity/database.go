// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"

	"github.com/overflowd/overflowd/internal/tracer"
)

// The file is a bbolt database of 1,024-byte pages and behind it, where bbolt
// does not look, a trailer of 40 bytes: a label and the SHA-256 of the database.
// bbolt has a checksum for its meta pages only. Measured with one byte changed
// in another page: a branch that leads to itself takes memory until the process
// dies, which no recover catches, and a count of zero reads as a key without its
// succession, with no error. So the trailer is looked at before, and then the
// pages (pages.go). Tx.Check is no substitute: it follows the pages in the same
// way, and in a goroutine of its own, where a fault ends the program.
const (
	pageSize    = 1024 // 512 loses the recovery of meta pages
	trailer     = "OVFLSUM1"
	trailerSize = len(trailer) + sha256.Size
	// maxFile is far more than maxSuccession endorsements take.
	maxFile = 256 << 10
)

// Buckets and keys. Integers are big-endian. The keys of the succession count
// from zero in 4 bytes; an endorsement is the old key (32 bytes), the new key
// (32), the time in Unix seconds (8) and the signature (64).
var (
	bucketIdentity   = []byte("identity")
	bucketSuccession = []byte("succession")
	keyFormat        = []byte("format")
	keySeed          = []byte("seed")
	keyPublic        = []byte("public")
	keyCreated       = []byte("created")
)

const (
	format          = 1
	endorsementSize = 32 + 32 + 8 + ed25519.SignatureSize
)

// encode builds the file of an identity.
func encode(id *Identity) ([]byte, error) {
	return Pack(func(tx *bbolt.Tx) error { return fill(tx, id) })
}

func fill(tx *bbolt.Tx, id *Identity) error {
	b, err := tx.CreateBucket(bucketIdentity)
	if err != nil {
		return err
	}
	public := id.Public()
	for _, kv := range []struct{ k, v []byte }{
		{keyFormat, []byte{format}},
		{keySeed, id.Private.Seed()},
		{keyPublic, public[:]},
		{keyCreated, binary.BigEndian.AppendUint64(nil, uint64(id.Created.Unix()))},
	} {
		if err := b.Put(kv.k, kv.v); err != nil {
			return err
		}
	}
	if b, err = tx.CreateBucket(bucketSuccession); err != nil {
		return err
	}
	b.FillPercent = 1 // nothing is ever put between
	for i := range id.Succession {
		e := &id.Succession[i]
		v := append(append(make([]byte, 0, endorsementSize), e.Old[:]...), e.New[:]...)
		v = binary.BigEndian.AppendUint64(v, uint64(e.Since))
		v = append(v, e.Signature[:]...)
		if err := b.Put(binary.BigEndian.AppendUint32(nil, uint32(i)), v); err != nil {
			return err
		}
	}
	return nil
}

// openRAM opens the database in f, which is closed with it.
func openRAM(f *os.File, readOnly bool) (*bbolt.DB, error) {
	return bbolt.Open(f.Name(), 0o600, &bbolt.Options{
		PageSize: pageSize, ReadOnly: readOnly, NoSync: true, NoGrowSync: true, NoStatistics: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
}

// boltMagic stands in both meta pages, in the byte order of the machine, after
// the 16 bytes that every page begins with.
const (
	boltMagic   = 0xed0cdaed
	boltMagicAt = 16
)

// errForeign: the files of bbolt are not for machines of another byte order.
var errForeign = errors.New("it was written on a machine of another byte order; keys move by overflowd key export and overflowd key import")

// decode reads the file of an identity.
func decode(file []byte) (id *Identity, err error) {
	err = Unpack(file, func(tx *bbolt.Tx) (err error) {
		id, err = read(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := id.check(); err != nil {
		return nil, err
	}
	return id, nil
}

func read(tx *bbolt.Tx) (*Identity, error) {
	b, s := tx.Bucket(bucketIdentity), tx.Bucket(bucketSuccession)
	if b == nil || s == nil {
		return nil, errors.New("a bucket is missing")
	}
	if f := b.Get(keyFormat); len(f) != 1 || f[0] != format {
		return nil, fmt.Errorf("its format is %x, not %02x: a newer version of overflowd wrote it", f, format)
	}
	seed, created := b.Get(keySeed), b.Get(keyCreated)
	if len(seed) != ed25519.SeedSize || len(created) != 8 {
		return nil, errors.New("there is no key in it")
	}
	id := &Identity{
		Private: ed25519.NewKeyFromSeed(seed),
		Created: time.Unix(int64(binary.BigEndian.Uint64(created)), 0),
	}
	if public := id.Public(); !bytes.Equal(public[:], b.Get(keyPublic)) {
		return nil, errors.New("the public key does not fit the secret one")
	}
	return id, s.ForEach(func(k, v []byte) error {
		next := binary.BigEndian.AppendUint32(nil, uint32(len(id.Succession)))
		if !bytes.Equal(k, next) || len(v) != endorsementSize || len(id.Succession) == maxSuccession {
			return fmt.Errorf("endorsement %d is malformed", len(id.Succession)+1)
		}
		id.Succession = append(id.Succession, tracer.Endorsement{
			Old:       tracer.PublicKey(v[:32]),
			New:       tracer.PublicKey(v[32:64]),
			Since:     int64(binary.BigEndian.Uint64(v[64:])),
			Signature: [ed25519.SignatureSize]byte(v[72:]),
		})
		return nil
	})
}
