// SPDX-License-Identifier: BSD-3-Clause

package prefix

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// ErrMany: a list has more entries than its limit.
var ErrMany = errors.New("too many prefixes")

// longestLine of a list, in bytes.
const longestLine = 512

// Parse reads an address, or a prefix as 192.0.2.0/24. Bits behind the length
// count as zero.
func Parse(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// ReadLines calls f for each line of a list that is neither empty nor begins with a #.
// Its error comes back with the number of the line, and ends it.
func ReadLines(r io.Reader, f func(line []byte) error) error {
	b := bufio.NewReaderSize(r, longestLine)
	for n := 1; ; n++ {
		line, end := b.ReadSlice('\n')
		if end == bufio.ErrBufferFull {
			return fmt.Errorf("line %d is longer than %d bytes", n, longestLine)
		}
		if end != nil && end != io.EOF {
			return end
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			if err := f(line); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		}
		if end != nil {
			return nil
		}
	}
}

// ends are what a prefix in a list may end with.
const ends = " \t;,#"

// ReadList reads a list of prefixes: one a line, at its beginning; what follows
// behind a space, a comma, a semicolon or a # is a comment. It returns how many there
// are. The error is ErrMany if they are more than most, and names a line that is no
// prefix. Memory depends on most only, not on the size of the list.
func ReadList(r io.Reader, most int) (*Set, int, error) {
	var b Builder
	n := 0
	err := ReadLines(r, func(line []byte) error {
		if i := bytes.IndexAny(line, ends); i >= 0 {
			line = line[:i]
		}
		if len(line) == 0 {
			return nil
		}
		p, err := Parse(string(line))
		if err != nil {
			return fmt.Errorf("%q is not an address or a prefix as 192.0.2.0/24", line)
		}
		if n++; n > most {
			return fmt.Errorf("%w: the limit is %d", ErrMany, most)
		}
		b.Add(p)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return b.Set().Sieved(), n, nil
}
