// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// checkPages walks the tree of pages ahead of bbolt, which follows any page
// number it finds: a branch that leads to itself takes memory until the process
// dies, and nothing recovers from that. Here every page is in the file, is
// reached once, and has its elements inside.
//
// The layouts are those of bbolt, in the byte order of the machine. A page is
// its number (8 bytes), its flags (2), its count of elements (2), the pages
// behind it that belong to it (4), and the elements, of 16 bytes each. Meta
// pages have from byte 16 on: magic (4), version (4), page size (4), flags (4),
// root page (8), sequence (8), freelist page (8), end of pages (8), transaction
// (8), and FNV-1a of those (8).
func checkPages(db []byte) error {
	if len(db)%pageSize != 0 {
		return errors.New("a part of a page is missing")
	}
	// bbolt takes the later transaction whose meta page is valid. In a snapshot
	// both are, and so there is no doubt which one it takes.
	root, last := uint64(0), uint64(0)
	for i := range 2 {
		meta := db[i*pageSize+boltMagicAt:][:64]
		sum := fnv.New64a()
		sum.Write(meta[:56])
		if u32(meta) != boltMagic || u32(meta[4:]) != boltVersion ||
			u32(meta[8:]) != pageSize || u64(meta[56:]) != sum.Sum64() {
			return fmt.Errorf("meta page %d is damaged", i)
		}
		if transaction := u64(meta[48:]); i == 0 || transaction > last {
			root, last = u64(meta[16:]), transaction
		}
	}
	w := walk{db, make([]bool, len(db)/pageSize)}
	return w.page(root, true)
}

const (
	boltVersion  = 2
	boltHeader   = 16 // bytes, of a page; of an element, too; and of a bucket
	branchPage   = 1  // flags of a page
	leafPage     = 2
	bucketInLeaf = 1 // flag of a leaf's element
)

type walk struct {
	db   []byte
	seen []bool
}

// page checks a page and those below it. Only at the top are there buckets that
// are followed.
func (w walk) page(n uint64, top bool) error {
	pages := uint64(len(w.seen))
	if n < 2 || n >= pages || w.seen[n] { // 0 and 1 are the meta pages
		return fmt.Errorf("page %d is not where the database has one", n)
	}
	page := w.db[n*pageSize:]
	end := n + 1 + uint64(u32(page[12:]))
	if end > pages {
		return fmt.Errorf("page %d is cut short", n)
	}
	page = page[:(end-n)*pageSize]
	for i := n; i < end; i++ {
		w.seen[i] = true
	}
	switch flags := u16(page[8:]); {
	case flags == leafPage:
		return w.leaf(page, top)
	case flags != branchPage || u16(page[10:]) == 0:
		return fmt.Errorf("page %d is neither a branch nor a leaf", n)
	}
	return elements(page, func(e []byte) error {
		if !inside(e, u32(e), u32(e[4:])) {
			return fmt.Errorf("page %d has a key outside of it", n)
		}
		return w.page(u64(e[8:]), top)
	})
}

func (w walk) leaf(page []byte, top bool) error {
	return elements(page, func(e []byte) error {
		at, key, value := u32(e[4:]), u32(e[8:]), u32(e[12:])
		if !inside(e, at, key, value) {
			return errors.New("a page has an entry outside of it")
		}
		if !top || u32(e)&bucketInLeaf == 0 {
			return nil
		}
		bucket := e[at+key:][:value]
		if value < boltHeader {
			return errors.New("a bucket is cut short")
		}
		if root := u64(bucket); root != 0 {
			return w.page(root, false)
		}
		bucket = bucket[boltHeader:] // which holds its only page itself
		if len(bucket) < boltHeader || u16(bucket[8:]) != leafPage {
			return errors.New("a bucket is cut short")
		}
		return w.leaf(bucket, false)
	})
}

// elements calls check with each element, and what is behind it in the page.
func elements(page []byte, check func(e []byte) error) error {
	count := int(u16(page[10:]))
	if boltHeader*(1+count) > len(page) {
		return fmt.Errorf("a page has no room for %d entries", count)
	}
	for i := range count {
		if err := check(page[boltHeader*(1+i):]); err != nil {
			return err
		}
	}
	return nil
}

// inside tells whether the sizes add up to no more than there is.
func inside(e []byte, sizes ...uint32) bool {
	sum := uint64(0)
	for _, size := range sizes {
		sum += uint64(size)
	}
	return sum <= uint64(len(e))
}

func u16(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
func u32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
