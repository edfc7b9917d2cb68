// SPDX-License-Identifier: BSD-3-Clause

// Package deb writes the packages for Debian and its relatives (deb(5), Debian Policy
// chapters 5 and 6).
package deb

import (
	"bytes"
	"crypto/md5"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/pack/tree"
)

//go:embed postinst
var postinst []byte

//go:embed prerm
var prerm []byte

//go:embed postrm
var postrm []byte

const maintainer = "Overflowd authors <overflowd@users.noreply.github.com>"

// descriptions of the packages.
var descriptions = map[string]string{
	"overflowd": `signed notices to the ends of sampled flows
 Watches the flows of a network and sends, for about one packet in a million, a
 signed tracer to the source and the destination of its flow: who saw it pass,
 and whom to call. The nastier a flood, the sooner its victim learns of it.
 .
 As installed it receives flow export datagrams from this machine, and sends
 nothing: /etc/default/overflowd has its flags.
`,
	"overflow-receiver": `receiver of signed notices about flows
 Takes the tracers that overflowd sends to the ends of flows, verifies and keeps
 them, and reports who carried a flood, whether its source is forged, and whom
 to call.
 .
 As installed it does not run: /etc/default/overflow-receiver has its flags, of
 which --to must name the addresses that are yours.
`,
}

// Options of Build.
type Options struct {
	Name    string // of the package, the program and its unit: overflowd or overflow-receiver
	Root    string // the folder of the project
	Program string // the static binary
	Arch    string // in Debian's words
	Version string // as 1.2.3
	At      time.Time
}

// File returns the name of the file.
func (o *Options) File() string { return fmt.Sprintf("%s_%s-1_%s.deb", o.Name, o.Version, o.Arch) }

// Build returns the file.
func Build(o Options) ([]byte, error) {
	if descriptions[o.Name] == "" {
		return nil, fmt.Errorf("there is no package %s", o.Name)
	}
	var files tree.Tree
	doc := "usr/share/doc/" + o.Name + "/"
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{o.Program, "usr/bin/" + o.Name, 0o755},
		{filepath.Join(o.Root, "internal/pack/systemd", o.Name+".service"), "lib/systemd/system/" + o.Name + ".service", 0o644},
		{filepath.Join(o.Root, "internal/pack/systemd", o.Name+".default"), "etc/default/" + o.Name, 0o644},
		{filepath.Join(o.Root, "LICENSE"), doc + "copyright", 0o644},
		{filepath.Join(o.Root, "README.md"), doc + "README.md", 0o644},
	} {
		b, err := os.ReadFile(f.from)
		if err != nil {
			return nil, err
		}
		files.Add(f.to, f.mode, b)
	}
	changes, err := os.ReadFile(filepath.Join(o.Root, "CHANGELOG.md"))
	if err != nil {
		return nil, err
	}
	if changes, err = tree.Gzip(changes); err != nil {
		return nil, err
	}
	files.Add(doc+"changelog.gz", 0o644, changes)
	if changes, err = tree.Gzip([]byte(o.changelog())); err != nil {
		return nil, err
	}
	files.Add(doc+"changelog.Debian.gz", 0o644, changes)
	// It runs on each Debian, old ones too.
	files.Add("usr/share/lintian/overrides/"+o.Name, 0o644, []byte(o.Name+": statically-linked-binary [usr/bin/"+o.Name+"]\n"))

	var sums strings.Builder
	for _, e := range files {
		if e.Mode.IsRegular() {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(e.Data), e.Path)
		}
	}
	var control tree.Tree
	control.Add("control", 0o644, []byte(o.control(files.Size())))
	control.Add("conffiles", 0o644, []byte("/etc/default/"+o.Name+"\n"))
	control.Add("md5sums", 0o644, []byte(sums.String()))
	for name, script := range map[string][]byte{"postinst": postinst, "prerm": prerm, "postrm": postrm} {
		control.Add(name, 0o755, bytes.Replace(script, []byte("name=overflowd\n"), []byte("name="+o.Name+"\n"), 1))
	}
	return o.archive(control, files)
}

func (o *Options) control(size int64) string {
	return fmt.Sprintf(`Package: %s
Version: %s-1
Architecture: %s
Maintainer: %s
Installed-Size: %d
Section: net
Priority: optional
Homepage: https://github.com/overflowd/overflowd
Description: %s`, o.Name, o.Version, o.Arch, maintainer, (size+1023)/1024, descriptions[o.Name])
}

// changelog is that of the package, not of the program.
func (o *Options) changelog() string {
	return fmt.Sprintf("%s (%s-1) unstable; urgency=medium\n\n  * The changes of the program are in changelog.gz.\n\n -- %s  %s\n",
		o.Name, o.Version, maintainer, o.At.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// archive puts the members together: ar(5), in the variant of deb(5).
func (o *Options) archive(control, data tree.Tree) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	member := func(name string, content []byte) {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, o.At.Unix(), 0, 0, 0o100644, len(content))
		b.Write(content)
		if len(content)%2 != 0 {
			b.WriteByte('\n')
		}
	}
	member("debian-binary", []byte("2.0\n"))
	for _, m := range []struct {
		name string
		tree tree.Tree
	}{{"control.tar.gz", control}, {"data.tar.gz", data}} {
		content, _, err := m.tree.TarGz(o.At)
		if err != nil {
			return nil, err
		}
		member(m.name, content)
	}
	return b.Bytes(), nil
}
