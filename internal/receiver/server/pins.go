// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/tracer"
)

// ReadPins returns the keys of a file of pinned keys: one at the begin of each
// line, and perhaps a note behind it. No file is none.
func ReadPins(path string) (map[tracer.PublicKey]bool, error) {
	keys := map[tracer.PublicKey]bool{}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return keys, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the pinned keys: %w", err)
	}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		word, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if word == "" || word[0] == '#' {
			continue
		}
		k, err := tracer.ParseKey(word)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		keys[k] = true
	}
	return keys, nil
}

// ChangePins adds a key to the file, or removes it. The rest of the file stays.
func ChangePins(path string, key tracer.PublicKey, pinned bool, note string) error {
	have, err := ReadPins(path)
	if err != nil {
		return err
	}
	if have[key] == pinned {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lines := slices.Collect(strings.Lines(string(text)))
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), key.String()) })
	if pinned {
		if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
			lines[n-1] += "\n"
		}
		lines = append(lines, strings.TrimSpace(key.String()+" "+note)+"\n")
	}
	return identity.Replace(path, []byte(strings.Join(lines, "")))
}
