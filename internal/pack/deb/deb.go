// SPDX-License-Identifier: BSD-3-Clause

// Package deb writes the package for Debian and its relatives (deb(5), Debian Policy
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

// Options of Build.
type Options struct {
	Root    string // the folder of the project
	Program string // the static binary
	Arch    string // in Debian's words
	Version string // as 1.2.3
	At      time.Time
}

// Name returns the name of the file.
func (o *Options) Name() string { return fmt.Sprintf("overflowd_%s-1_%s.deb", o.Version, o.Arch) }

// Build returns the file.
func Build(o Options) ([]byte, error) {
	var files tree.Tree
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{o.Program, "usr/bin/overflowd", 0o755},
		{filepath.Join(o.Root, "internal/pack/systemd/overflowd.service"), "lib/systemd/system/overflowd.service", 0o644},
		{filepath.Join(o.Root, "internal/pack/systemd/overflowd.default"), "etc/default/overflowd", 0o644},
		{filepath.Join(o.Root, "LICENSE"), "usr/share/doc/overflowd/copyright", 0o644},
		{filepath.Join(o.Root, "README.md"), "usr/share/doc/overflowd/README.md", 0o644},
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
	files.Add("usr/share/doc/overflowd/changelog.gz", 0o644, changes)

	var sums strings.Builder
	for _, e := range files {
		if e.Mode.IsRegular() {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(e.Data), e.Path)
		}
	}
	var control tree.Tree
	control.Add("control", 0o644, []byte(o.control(files.Size())))
	control.Add("conffiles", 0o644, []byte("/etc/default/overflowd\n"))
	control.Add("md5sums", 0o644, []byte(sums.String()))
	control.Add("postinst", 0o755, postinst)
	control.Add("prerm", 0o755, prerm)
	control.Add("postrm", 0o755, postrm)
	return o.archive(control, files)
}

func (o *Options) control(size int64) string {
	return fmt.Sprintf(`Package: overflowd
Version: %s-1
Architecture: %s
Maintainer: Overflowd authors <overflowd@users.noreply.github.com>
Installed-Size: %d
Section: net
Priority: optional
Homepage: https://github.com/overflowd/overflowd
Description: signed notices to the ends of sampled flows
 Watches the flows of a network and sends, for about one packet in a million, a
 signed tracer to the source and the destination of its flow: who saw it pass,
 and whom to call. The nastier a flood, the sooner its victim learns of it.
 .
 As installed it receives flow export datagrams from this machine, and sends
 nothing: /etc/default/overflowd has its flags.
`, o.Version, o.Arch, (size+1023)/1024)
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
