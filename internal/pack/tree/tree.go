// SPDX-License-Identifier: BSD-3-Clause

// Package tree holds the files of a package, as every kind of package wants them:
// sorted, owned by root, without times.
package tree

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Entry is a file, a folder or a symbolic link.
type Entry struct {
	Path   string      // relative, with slashes
	Mode   fs.FileMode // type and permissions
	Data   []byte      // of a file
	Target string      // of a symbolic link
}

// Tree is sorted by path. Each folder of an entry is an entry, too.
type Tree []Entry

// Read reads a folder.
func Read(root string) (Tree, error) {
	var t Tree
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == root {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := Entry{Path: filepath.ToSlash(rel), Mode: info.Mode()}
		switch info.Mode().Type() {
		case 0:
			e.Data, err = os.ReadFile(name)
		case fs.ModeSymlink:
			e.Target, err = os.Readlink(name)
		case fs.ModeDir:
		default:
			err = fmt.Errorf("%s is neither a file nor a folder nor a link", name)
		}
		t = append(t, e)
		return err
	})
	t.sort()
	return t, err
}

func (t Tree) sort() {
	slices.SortFunc(t, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
}

// Add puts a file there, and the folders that it needs, in the place of what had
// its path.
func (t *Tree) Add(name string, mode fs.FileMode, data []byte) {
	name = strings.Trim(path.Clean(name), "/")
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if t.Find(dir) == nil {
			*t = append(*t, Entry{Path: dir, Mode: fs.ModeDir | 0o755})
		}
	}
	if e := t.Find(name); e != nil {
		*e = Entry{Path: name, Mode: mode, Data: data}
	} else {
		*t = append(*t, Entry{Path: name, Mode: mode, Data: data})
	}
	t.sort()
}

// Find returns the entry of a path, with or without a slash in front, or nil.
func (t Tree) Find(name string) *Entry {
	name = strings.Trim(path.Clean(name), "/")
	for i := range t {
		if t[i].Path == name {
			return &t[i]
		}
	}
	return nil
}

// Size returns the bytes of all files.
func (t Tree) Size() (n int64) {
	for _, e := range t {
		n += int64(len(e.Data))
	}
	return n
}

// Tar returns the tree as a tar file, as GNU tar writes it with --owner=0 --group=0
// --numeric-owner and all times the same. Names begin as "./".
func (t Tree) Tar(at time.Time) ([]byte, error) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	root := tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: at, Format: tar.FormatGNU}
	if err := w.WriteHeader(&root); err != nil {
		return nil, err
	}
	for _, e := range t {
		h := tar.Header{Typeflag: tar.TypeReg, Name: "./" + e.Path, Mode: int64(e.Mode.Perm()), ModTime: at, Size: int64(len(e.Data)), Format: tar.FormatGNU}
		switch e.Mode.Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		case fs.ModeSymlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	err := w.Close()
	return plain.Bytes(), err
}

// TarGz returns the tree as a tar file, compressed; and the size of the tar file before
// compression.
func (t Tree) TarGz(at time.Time) (b []byte, size int64, err error) {
	plain, err := t.Tar(at)
	if err != nil {
		return nil, 0, err
	}
	b, err = Gzip(plain)
	return b, int64(len(plain)), err
}

// Gzip compresses as gzip -9n does: without a name and a time.
func Gzip(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}
