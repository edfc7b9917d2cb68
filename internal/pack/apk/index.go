// SPDX-License-Identifier: BSD-3-Clause

package apk

import (
	"cmp"
	"slices"

	"github.com/overflowd/overflowd/internal/pack/adb"
)

// Indexed is a package with the size of its file.
type Indexed struct {
	*Built
	FileSize int
}

// Index returns the container of a repository's index, packages.adb.
func Index(packages []Indexed) *adb.File {
	packages = slices.Clone(packages)
	slices.SortFunc(packages, func(a, b Indexed) int { return cmp.Compare(a.info.name, b.info.name) })
	w := adb.NewWriter()
	var all []adb.Value
	for _, p := range packages {
		var fields [infoFields]adb.Value
		p.info.write(w, &fields)
		fields[infoHashes-1] = w.Blob(p.hash[:])
		fields[infoSize-1] = w.Int(p.info.size)
		fields[infoFileSize-1] = w.Int(uint64(p.FileSize))
		all = append(all, w.Object(fields[:]...))
	}
	w.Root(w.Object(adb.Null, w.Object(all...)))
	return adb.NewFile("indx", w)
}
