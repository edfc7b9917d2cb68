// SPDX-License-Identifier: BSD-3-Clause

package receiver

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/tracer"
)

// SealFile holds the secret keys of the sealed form: the newest, which senders are
// told, and those before, so that what is sealed to these can be opened.
const SealFile = "seal.pem"

// MaxSealKeys is how many there are at the most.
const MaxSealKeys = 4

// ReadSealKeys returns those of a state's folder; none if there is no file.
func ReadSealKeys(dir string) (tracer.Openers, error) {
	path := filepath.Join(dir, SealFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the keys of the sealed form: %w", err)
	}
	keys, err := tracer.ParseOpeners(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// SealKeysOf returns those of a state's folder, and makes one if there is none, or another
// one if that is wanted.
func SealKeysOf(dir string, another bool) (tracer.Openers, error) {
	keys, err := ReadSealKeys(dir)
	if err == nil && (len(keys) == 0 || another) {
		return NewSealKey(dir)
	}
	return keys, err
}

// NewSealKey makes a key that is told from now on, and returns all there are. A
// running program sees it within seconds.
func NewSealKey(dir string) (tracer.Openers, error) {
	keys, err := ReadSealKeys(dir)
	if err != nil {
		return nil, err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	keys = append(tracer.Openers{key}, keys[:min(len(keys), MaxSealKeys-1)]...)
	text, err := keys.Marshal()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, SealFile)
	if err := identity.Replace(path, text); err != nil {
		return nil, err
	}
	// Root makes it for the user that the program runs as, whose folder it is.
	if info, err := os.Stat(dir); err == nil && os.Geteuid() == 0 {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 {
			return keys, os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}
	}
	return keys, nil
}

// SealKeys are those of the file in a state's folder, as it was when Load was called last.
// Open and Key are safe for concurrent use.
type SealKeys struct {
	Dir   string
	stamp time.Time
	now   atomic.Pointer[tracer.Openers] // nil: none
}

// Load reads the file if it changed.
func (k *SealKeys) Load() error {
	stamp := time.Time{}
	if info, err := os.Stat(filepath.Join(k.Dir, SealFile)); err == nil {
		stamp = info.ModTime()
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if stamp.Equal(k.stamp) {
		return nil
	}
	keys, err := ReadSealKeys(k.Dir)
	if err != nil {
		return err
	}
	k.stamp = stamp
	k.now.Store(nil)
	if len(keys) > 0 {
		k.now.Store(&keys)
	}
	return nil
}

// Open opens a sealed tracer.
func (k *SealKeys) Open(sealed []byte) ([]byte, error) {
	keys := k.now.Load()
	if keys == nil {
		return nil, Sealed
	}
	return keys.Open(sealed)
}

// Key returns the key that senders are told, or zero.
func (k *SealKeys) Key() (key tracer.SealKey) {
	if keys := k.now.Load(); keys != nil {
		key = keys.Key()
	}
	return key
}
