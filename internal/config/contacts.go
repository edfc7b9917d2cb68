// SPDX-License-Identifier: BSD-3-Clause

//go:build !mini

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/tracer"
)

// maxContacts in a file.
const maxContacts = 100_000

// readContacts reads a file of contacts; the smallest prefixes come first.
func readContacts(path string) (all []ContactFor, err error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		var of *fs.PathError
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, fmt.Errorf("--contacts %s: %w", path, err)
	}
	defer file.Close()
	err = prefix.ReadLines(file, func(line []byte) error {
		c, err := parseContact(string(line))
		if err == nil && len(all) == maxContacts {
			err = fmt.Errorf("more than %d contacts", maxContacts)
		}
		all = append(all, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("--contacts %s: %w", path, err)
	}
	sort.Sort(bySize(all))
	for i := 1; i < len(all); i++ {
		if all[i-1].Prefix == all[i].Prefix {
			return nil, fmt.Errorf("--contacts %s: %s is there twice", path, all[i].Prefix)
		}
	}
	return all, nil
}

// bySize sorts the smallest prefixes to the front.
type bySize []ContactFor

func (c bySize) Len() int      { return len(c) }
func (c bySize) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c bySize) Less(i, j int) bool {
	a, b := c[i].Prefix, c[j].Prefix
	return a.Bits() > b.Bits() || a.Bits() == b.Bits() && a.Addr().Less(b.Addr())
}

// parseContact reads a line: a prefix, and parts as name=value, with semicolons
// between them.
func parseContact(line string) (c ContactFor, err error) {
	text, rest, _ := strings.Cut(line, ";")
	text = strings.TrimSpace(text)
	if c.Prefix, err = prefix.Parse(text); err != nil {
		return c, fmt.Errorf("%q is not an address or a prefix as 192.0.2.0/24", text)
	}
	var parts [5]string
	for _, part := range strings.Split(rest, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name == "" && value == "" {
			continue
		}
		i := 0
		for i < len(parts) && name != [len(parts)]string{"email", "identity", "url", "role", "asn"}[i] {
			i++
		}
		if i == len(parts) || parts[i] != "" {
			return c, fmt.Errorf("%q is not one of email, identity, url, role and asn, each once, as email=abuse@example.net", part)
		}
		parts[i] = value
	}
	if err := fillContact(&c.Contact, "", parts[0], parts[1], parts[2], parts[3], parts[4]); err != nil {
		return c, err
	}
	if (c.Contact == tracer.Contact{Role: c.Contact.Role}) {
		return c, errors.New("nobody can be reached: give an email, an identity, a url or an asn")
	}
	if over := len(largest(c.Contact)) - tracer.MaxMessage; over > 0 {
		return c, fmt.Errorf("the contact is %d bytes too long for a tracer", over)
	}
	return c, nil
}
