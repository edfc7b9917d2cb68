// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
)

// Pack builds a database in RAM and returns the file of it: what fill puts into
// it, and the checksum behind it. It is also the form of other files than the
// identity's that are kept in flash.
func Pack(fill func(*bbolt.Tx) error) ([]byte, error) {
	f, err := ramFile(nil)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	db, err := openRAM(f, false)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := db.Update(fill); err != nil {
		return nil, err
	}
	var file bytes.Buffer
	err = db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(&file)
		return err
	})
	sum := sha256.Sum256(file.Bytes())
	file.WriteString(trailer)
	file.Write(sum[:])
	return file.Bytes(), err
}

// Unpack reads a file of Pack's. Whatever it holds, it returns an error at the
// worst. read must keep nothing of the database.
func Unpack(file []byte, read func(*bbolt.Tx) error) (err error) {
	size := len(file) - trailerSize
	if size < 4*pageSize || string(file[size:size+len(trailer)]) != trailer {
		return errors.New("a part of it is missing")
	}
	if sum := sha256.Sum256(file[:size]); !bytes.Equal(sum[:], file[size+len(trailer):]) {
		return errors.New("its checksum does not fit")
	}
	if bits.ReverseBytes32(binary.NativeEndian.Uint32(file[boltMagicAt:])) == boltMagic {
		return errForeign
	}
	// The checksum is no signature: whoever may write the file may still write
	// what ends bbolt, or, past these checks, makes it fault.
	if err := checkPages(file[:size]); err != nil {
		return fmt.Errorf("bbolt: %w", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("bbolt: %v", r)
		}
	}()
	f, err := ramFile(file[:size])
	if err != nil {
		return err
	}
	defer f.Close()
	db, err := openRAM(f, true)
	if err != nil {
		return fmt.Errorf("bbolt: %w", err)
	}
	defer db.Close()
	return db.View(read)
}

// Replace puts a file in the place of another, so that a cut at any point leaves
// the one or the other.
func Replace(path string, data []byte) (err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	s := &Store{dir: filepath.Dir(path), name: filepath.Base(path)}
	return s.write(dir, data)
}
