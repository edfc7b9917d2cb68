// SPDX-License-Identifier: BSD-3-Clause

// Package identity keeps the signing key. The key is the reputation: it is
// never lost silently, never made twice, and what a power cut leaves is the old
// key or the new one.
//
// It lives in a bbolt database whose file is written as a whole, by rename:
// bbolt maps a file that it writes with MAP_SHARED, which JFFS2 and overlayfs
// above it refuse, and its creation in place does not survive a power cut. So
// the database is built and read in RAM (ram_linux.go), and only snapshots of
// it touch the flash (write.go): 6 to 8 kB when the key is made or rotated,
// nothing in between.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/overflowd/overflowd/internal/tracer"
)

// Identity is the signing key and where it comes from.
type Identity struct {
	Private ed25519.PrivateKey
	Created time.Time // of this key, whole seconds
	// Succession is how one key endorsed the next, oldest first: New of each is
	// Old of the one behind it, and New of the last is this key. The last 64
	// rotations are kept. Only public keys are in it: the secret of a key ends
	// with its rotation.
	Succession []tracer.Endorsement
}

// maxSuccession rotations are remembered; with the next one the oldest is
// forgotten. A verifier that knows only keys from before loses the track then.
const maxSuccession = 64

// maxTime is the end of the year 9999, the last that RFC 3339 can write.
const maxTime = 253402300799

// New makes a key. It blocks while the kernel has no randomness to give, as in
// the first seconds after boot, and so is called when a key is first needed and
// not before.
func New(now time.Time) *Identity {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return &Identity{Private: private, Created: time.Unix(now.Unix(), 0)}
}

// Public returns the public key.
func (id *Identity) Public() tracer.PublicKey {
	return tracer.PublicKey(id.Private.Public().(ed25519.PublicKey))
}

// Endorsement returns the word of the key before this one, nil if this is the
// first. It points into Succession.
func (id *Identity) Endorsement() *tracer.Endorsement {
	if len(id.Succession) == 0 {
		return nil
	}
	return &id.Succession[len(id.Succession)-1]
}

// successor returns a new key that this one endorses.
func (id *Identity) successor(now time.Time) *Identity {
	next := New(now)
	e := tracer.Endorse(id.Private, next.Public(), next.Created.Unix())
	next.Succession = append(append(next.Succession, id.Succession...), e)
	if over := len(next.Succession) - maxSuccession; over > 0 {
		next.Succession = next.Succession[over:]
	}
	return next
}

// check tells what is wrong with an identity that was read or is to be written.
func (id *Identity) check() error {
	if len(id.Private) != ed25519.PrivateKeySize ||
		!id.Private.Equal(ed25519.NewKeyFromSeed(id.Private.Seed())) {
		return errors.New("there is no key in it")
	}
	if t := id.Created.Unix(); t < 0 || t > maxTime {
		return fmt.Errorf("the time of its making, %d, is not one of the years 1970 to 9999", t)
	}
	if len(id.Succession) > maxSuccession {
		return fmt.Errorf("it has %d endorsements, more than %d", len(id.Succession), maxSuccession)
	}
	for i := range id.Succession {
		e := &id.Succession[i]
		next := id.Public()
		if i+1 < len(id.Succession) {
			next = id.Succession[i+1].Old
		}
		if e.New != next || e.Since < 0 || e.Since > maxTime || !e.Valid() {
			return fmt.Errorf("endorsement %d is not valid", i+1)
		}
	}
	return nil
}

func (id *Identity) equal(other *Identity) bool {
	if !id.Private.Equal(other.Private) || len(id.Succession) != len(other.Succession) {
		return false
	}
	for i := range id.Succession {
		if id.Succession[i] != other.Succession[i] {
			return false
		}
	}
	return true
}
