// SPDX-License-Identifier: BSD-3-Clause

// Package apk writes the packages of apk-tools 3, OpenWrt's package manager from
// 25.12 on, and the index of a repository of them. What they hold is what "apk mkpkg"
// and "apk mkndx" write: the same values in the same order, so that without the
// compression a package is the same to the byte (apk-tools 3.0: src/app_mkpkg.c,
// src/apk_adb.h).
package apk

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/overflowd/overflowd/internal/pack/adb"
	"github.com/overflowd/overflowd/internal/pack/feed"
	"github.com/overflowd/overflowd/internal/pack/tree"
)

// Name returns the name of the file.
func Name(p *feed.Package) string { return p.Name + "-" + p.Version + ".apk" }

// Built is a package.
type Built struct {
	Container *adb.File
	info      info
	hash      [sha256.Size]byte // of the first block: the identity of the package
}

// info are the fields of a package that its index repeats.
type info struct {
	name, version, description, arch, license, origin, maintainer, url string
	priority                                                           uint64
	depends, provides, tags                                            []string
	size                                                               uint64 // installed, bytes
}

// Build returns the package. All files in it are of 1970, as in OpenWrt's.
func Build(p *feed.Package) *Built {
	files := metadata(p)
	b := &Built{info: describe(p)}
	b.info.size = max(1, uint64(files.Size()))
	w := adb.NewWriter()
	var fields [infoFields]adb.Value
	b.info.write(w, &fields)
	folders := split(files)
	paths := writeFolders(w, folders)
	fields[infoSize-1] = w.Int(b.info.size)
	id := w.Place(20) // of the contents: SHA-1 was this long
	fields[infoHashes-1] = id
	information := w.Object(fields[:]...)
	all := w.Object(paths...)
	w.Root(w.Object(information, all, writeScripts(w, p.ApkScripts())))

	sum := sha256.Sum256(w.Payload())
	w.Fill(id, sum[:20])
	b.hash = sha256.Sum256(w.Payload())
	b.Container = adb.NewFile("pckg", w)
	for i, folder := range folders {
		for j, e := range folder.files {
			if e.Mode.IsRegular() && len(e.Data) > 0 {
				b.Container.Data(i+1, j+1, e.Data)
			}
		}
	}
	return b
}

// Fields of a package's information, from 1.
const (
	infoName        = 0x01
	infoVersion     = 0x02
	infoHashes      = 0x03
	infoDescription = 0x04
	infoArch        = 0x05
	infoLicense     = 0x06
	infoOrigin      = 0x07
	infoMaintainer  = 0x08
	infoURL         = 0x09
	infoSize        = 0x0c
	infoFileSize    = 0x0d
	infoPriority    = 0x0e
	infoDepends     = 0x0f
	infoProvides    = 0x10
	infoTags        = 0x15
	infoFields      = 0x15
)

// write writes the fields, but for size and hash, in the order of their numbers.
func (i *info) write(w *adb.Writer, fields *[infoFields]adb.Value) {
	for _, f := range []struct {
		number int
		text   string
	}{
		{infoName, i.name}, {infoVersion, i.version}, {infoDescription, i.description}, {infoArch, i.arch}, {infoLicense, i.license},
		{infoOrigin, i.origin}, {infoMaintainer, i.maintainer}, {infoURL, i.url},
	} {
		fields[f.number-1] = w.Text(f.text)
	}
	if i.priority != 0 {
		fields[infoPriority-1] = w.Int(i.priority)
	}
	fields[infoDepends-1] = dependencies(w, i.depends)
	fields[infoProvides-1] = dependencies(w, i.provides)
	var tags []adb.Value
	for _, tag := range i.tags {
		tags = append(tags, w.Text(tag))
	}
	fields[infoTags-1] = w.Object(tags...)
}

// dependencies writes names, or names=versions, sorted.
func dependencies(w *adb.Writer, all []string) adb.Value {
	type named struct {
		name  string
		value adb.Value
	}
	var written []named
	for _, d := range all {
		name, version, _ := strings.Cut(d, "=")
		written = append(written, named{name, w.Object(w.Text(name), w.Text(version))})
	}
	slices.SortFunc(written, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	var values []adb.Value
	for _, n := range written {
		values = append(values, n.value)
	}
	return w.Object(values...)
}

// folder is one of a package, with the files in it.
type folder struct {
	path  string // "" is the root
	mode  fs.FileMode
	files []tree.Entry
}

// split returns the folders sorted, with the root in front.
func split(t tree.Tree) []folder {
	folders := []folder{{mode: 0o755}}
	for _, e := range t {
		if e.Mode.IsDir() {
			folders = append(folders, folder{path: e.Path, mode: e.Mode})
		}
	}
	slices.SortFunc(folders, func(a, b folder) int { return cmp.Compare(a.path, b.path) })
	for i := range folders {
		for _, e := range t {
			if dir := path.Dir(e.Path); !e.Mode.IsDir() && (dir == folders[i].path || dir == "." && folders[i].path == "") {
				folders[i].files = append(folders[i].files, e)
			}
		}
	}
	return folders
}

func writeFolders(w *adb.Writer, folders []folder) (all []adb.Value) {
	for _, f := range folders {
		var files []adb.Value
		for _, e := range f.files {
			files = append(files, writeFile(w, e))
		}
		all = append(all, w.Object(w.Text(f.path), access(w, f.mode), w.Object(files...)))
	}
	return all
}

// symlink is the type of a symbolic link in st_mode, before its target.
const symlink = 0o120000

func writeFile(w *adb.Writer, e tree.Entry) adb.Value {
	name := w.Text(path.Base(e.Path))
	hash, target, size := adb.Null, adb.Null, len(e.Data)
	if e.Mode.IsRegular() {
		sum := sha256.Sum256(e.Data)
		hash = w.Blob(sum[:])
	} else {
		target = w.Blob(append(binary.LittleEndian.AppendUint16(nil, symlink), e.Target...))
		size = len(e.Target)
	}
	mtime := w.Int(0)
	return w.Object(name, access(w, e.Mode), w.Int(uint64(size)), mtime, hash, target)
}

// access writes permissions and owner.
func access(w *adb.Writer, mode fs.FileMode) adb.Value {
	return w.Object(w.Int(uint64(mode.Perm())), w.Text("root"), w.Text("root"))
}

func writeScripts(w *adb.Writer, scripts []feed.Script) adb.Value {
	names := []string{"trigger", "pre-install", "post-install", "pre-deinstall", "post-deinstall", "pre-upgrade", "post-upgrade"}
	values := make([]adb.Value, len(names))
	for i, name := range names {
		for _, s := range scripts {
			if s.Name == name {
				values[i] = w.Text(s.Text)
			}
		}
	}
	return w.Object(values...)
}

func describe(p *feed.Package) info {
	i := info{
		name: p.Name, version: p.Version, description: strings.Join(strings.Fields(p.Description), " "), arch: p.Arch, license: p.License,
		origin: p.Source, maintainer: p.Maintainer, url: p.URL, depends: p.Depends, tags: []string{"openwrt:section=" + p.Section},
	}
	if i.arch == "all" {
		i.arch = "noarch"
	}
	for _, provided := range p.Provides {
		// With a version it is a name that one package only has.
		i.provides = append(i.provides, provided+"="+p.Version)
	}
	i.provides = append(i.provides, p.Name+"-any")
	if p.Default {
		i.priority = 100
	}
	return i
}

// metadata returns the files of the package and those in /lib/apk/packages, from
// which OpenWrt's functions learn what other package managers have as metadata.
func metadata(p *feed.Package) tree.Tree {
	files := slices.Clone(p.Files)
	var list, static strings.Builder
	for _, e := range files {
		if !e.Mode.IsDir() {
			fmt.Fprintf(&list, "/%s\n", e.Path)
		}
	}
	base := "lib/apk/packages/" + p.Name
	if p.UserID != "" {
		files.Add(base+".rusers", 0o644, []byte(p.UserID+"\n"))
		fmt.Fprintf(&list, "/%s.rusers\n", base)
	}
	lines := strings.SplitAfter(list.String(), "\n")
	slices.Sort(lines)
	files.Add(base+".list", 0o644, []byte(strings.Join(lines, "")))
	if len(p.Conffiles) > 0 {
		files.Add(base+".conffiles", 0o644, []byte(strings.Join(p.Conffiles, "\n")+"\n"))
	}
	for _, c := range p.Configuration() {
		sum := sha256.Sum256(files.Find(c).Data)
		fmt.Fprintf(&static, "%s %s\n", c, hex.EncodeToString(sum[:]))
	}
	if static.Len() > 0 {
		files.Add(base+".conffiles_static", 0o644, []byte(static.String()))
	}
	return files
}
