// SPDX-License-Identifier: BSD-3-Clause

// Package store keeps verified tracers in files of lines, bounded by size and age.
//
// There are two series of files, "tracers" of keys with standing and
// "tracers-new" of others: whoever makes keys and sends with them has only the
// tracers of such as himself forgotten. A file that is full is renamed to
// NAME.MILLISECONDS, the time of its last tracer. Every line has a checksum, and a
// line that a cut left half written is passed over.
package store

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

// The names of the series.
var names = [2]string{"tracers", "tracers-new"}

const (
	standing = 0
	fresh    = 1
	segments = 8 // files of a series at the most
)

// Limits of a store.
type Limits struct {
	Size int64         // bytes, of all files; a quarter of it is for keys without standing
	Age  time.Duration // of a tracer
	Rate int           // tracers of one key that are kept of a minute; 0: all
}

// A Store is not safe for concurrent use.
type Store struct {
	dir    string
	limits Limits
	series [2]series
	minute int64
	rates  map[tracer.PublicKey]int // of this minute
	buf    []byte
	// Omitted counts tracers that were not kept, as there were too many of one key.
	Omitted uint64
}

type series struct {
	file *os.File
	out  *bufio.Writer
	size int64
	last int64 // arrival of the last tracer, ms
}

// Open opens a store in a folder, which it makes if it is missing.
func Open(dir string, limits Limits) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s := &Store{dir: dir, limits: limits, rates: map[tracer.PublicKey]int{}}
	for i := range s.series {
		if err := s.open(i); err != nil {
			s.Close()
			return nil, fmt.Errorf("open the store: %w", err)
		}
	}
	return s, s.Prune(time.Now())
}

// open opens the file of a series that is written to.
func (s *Store) open(i int) error {
	f, err := os.OpenFile(filepath.Join(s.dir, names[i]), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return err
	}
	x := &s.series[i]
	*x = series{file: f, out: bufio.NewWriterSize(f, 64<<10), size: size}
	end := []byte{'\n'}
	if size > 0 {
		if _, err := f.ReadAt(end, size-1); err != nil {
			f.Close()
			return err
		}
	}
	if end[0] != '\n' { // a cut came in the middle of a line
		x.out.WriteByte('\n')
		x.size++
	}
	return nil
}

// Add keeps a tracer. It is in the file after the next Flush.
func (s *Store) Add(x *receiver.Received) error {
	if m := x.Arrived.Unix() / 60; m != s.minute {
		s.minute = m
		clear(s.rates)
	}
	if s.limits.Rate > 0 && len(s.rates) < 1<<16 {
		if s.rates[x.Signed.Key]++; s.rates[x.Signed.Key] > s.limits.Rate {
			s.Omitted++
			return nil
		}
	}
	i := standing
	if x.Level == receiver.NewKey {
		i = fresh
	}
	s.buf = appendLine(s.buf[:0], x)
	f := &s.series[i]
	if f.size > 0 && f.size+int64(len(s.buf)) > s.segment(i) {
		if err := s.rotate(i, x.Arrived); err != nil {
			return fmt.Errorf("rotate the store: %w", err)
		}
	}
	if _, err := f.out.Write(s.buf); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	f.size += int64(len(s.buf))
	f.last = x.Arrived.UnixMilli()
	return nil
}

// segment is the size of one file of a series.
func (s *Store) segment(i int) int64 { return s.share(i) / segments }

func (s *Store) share(i int) int64 {
	if i == fresh {
		return s.limits.Size / 4
	}
	return s.limits.Size - s.limits.Size/4
}

func (s *Store) rotate(i int, now time.Time) error {
	f := &s.series[i]
	err := errors.Join(f.out.Flush(), f.file.Sync(), f.file.Close())
	last := f.last
	if last == 0 {
		last = now.UnixMilli()
	}
	name := filepath.Join(s.dir, names[i])
	for exists(name + "." + strconv.FormatInt(last, 10)) {
		last++
	}
	err = errors.Join(err, os.Rename(name, name+"."+strconv.FormatInt(last, 10)))
	return errors.Join(err, s.open(i), s.Prune(now))
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Prune removes files that are too old, or too many.
func (s *Store) Prune(now time.Time) error {
	for i := range s.series {
		files, err := list(s.dir, i)
		if err != nil {
			return err
		}
		// The oldest are the first; the last is the one that is written to.
		for j, f := range files {
			if f.last != 0 && (len(files)-j > segments || s.limits.Age > 0 && now.UnixMilli()-f.last > s.limits.Age.Milliseconds()) {
				if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	return nil
}

// Flush writes what was added to the files.
func (s *Store) Flush() error {
	var errs []error
	for i := range s.series {
		if f := &s.series[i]; f.file != nil {
			errs = append(errs, f.out.Flush())
		}
	}
	return errors.Join(errs...)
}

// Sync has what was flushed to the files of a store written to the medium. It may
// be called while the store is used.
func Sync(dir string) error {
	var errs []error
	for _, name := range names {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		if err != nil {
			continue // it is being renamed
		}
		errs = append(errs, f.Sync(), f.Close())
	}
	return errors.Join(errs...)
}

// Close writes what was added and closes the files.
func (s *Store) Close() error {
	err := errors.Join(s.Flush(), Sync(s.dir))
	for i := range s.series {
		if f := s.series[i].file; f != nil {
			err = errors.Join(err, f.Close())
		}
		s.series[i].file = nil
	}
	return err
}

// A part is a file of a series.
type part struct {
	path string
	last int64 // arrival of its last tracer, ms; 0: it is written to
	size int64
}

// list returns the files of a series, the oldest first.
func list(dir string, i int) ([]part, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []part
	for _, e := range entries {
		f := part{path: filepath.Join(dir, e.Name())}
		if suffix, ok := strings.CutPrefix(e.Name(), names[i]+"."); ok {
			n, err := strconv.ParseInt(suffix, 10, 64)
			if err != nil || n <= 0 {
				continue
			}
			f.last = n
		} else if e.Name() != names[i] {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		f.size = info.Size()
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b part) int { return cmp.Compare(uint64(a.last-1), uint64(b.last-1)) }) // 0 is the last
	return files, nil
}

// Damaged says that lines could not be read.
type Damaged struct{ Lines int }

func (d Damaged) Error() string { return fmt.Sprintf("%d lines of the store are damaged", d.Lines) }

// Read calls each with the tracers that arrived at since or later, in no order
// but that of their files. progress, if not nil, is told how many bytes of all
// were read. Lines that cannot be read are passed over, and make a Damaged in the
// end.
func Read(ctx context.Context, dir string, since time.Time, progress func(read, all int64), each func(*receiver.Received) error) error {
	var files []part
	all, read := int64(0), int64(0)
	for i := range names {
		of, err := list(dir, i)
		if err != nil {
			return fmt.Errorf("read the store: %w", err)
		}
		for _, f := range of {
			if f.last == 0 || f.last >= since.UnixMilli() {
				files = append(files, f)
				all += f.size
			}
		}
	}
	damaged := 0
	for _, f := range files {
		err := readFile(f.path, func(line []byte) error {
			read += int64(len(line) + 1)
			if err := ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				progress(min(read, all), all)
			}
			if ms, ok := arrivedAt(line); ok && ms < since.UnixMilli() {
				return nil
			}
			x, err := parseLine(line)
			if err != nil {
				if len(line) > 0 {
					damaged++
				}
				return nil
			}
			return each(x)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // which a rotation may have made of it
			return fmt.Errorf("read the store: %w", err)
		}
	}
	if damaged > 0 {
		return Damaged{damaged}
	}
	return nil
}

// readFile calls each with the whole lines of a file.
func readFile(path string, each func(line []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxLine+1)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			line = []byte("too long")
		case err == io.EOF:
			return nil // what is there is being written, or was cut
		case err != nil:
			return err
		default:
			line = line[:len(line)-1]
		}
		if err := each(line); err != nil {
			return err
		}
	}
}
