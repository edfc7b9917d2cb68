// SPDX-License-Identifier: BSD-3-Clause

// Package ipk writes the packages of opkg, OpenWrt's package manager up to 24.10, and
// the index of a feed of them. The format is what OpenWrt's scripts/ipkg-build
// makes: a compressed tar file of debian-binary, data.tar.gz and control.tar.gz.
package ipk

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/pack/feed"
	"github.com/overflowd/overflowd/internal/pack/tree"
)

// Name returns the name of the file.
func Name(p *feed.Package) string {
	return fmt.Sprintf("%s_%s_%s.ipk", p.Name, p.Version, p.Arch)
}

// Build returns the file. All times in it are at.
func Build(p *feed.Package, at time.Time) ([]byte, error) {
	data, size, err := p.Files.TarGz(at)
	if err != nil {
		return nil, err
	}
	var control tree.Tree
	control.Add("control", 0o644, []byte(fields(p, at, size)+description(p)))
	if c := p.Configuration(); len(c) > 0 {
		control.Add("conffiles", 0o644, []byte(strings.Join(c, "\n")+"\n"))
	}
	for _, s := range p.OpkgScripts() {
		control.Add(s.Name, 0o755, []byte(s.Text))
	}
	controlTar, _, err := control.TarGz(at)
	if err != nil {
		return nil, err
	}
	return outer(at, data, controlTar)
}

// outer has its members in the order of ipkg-build.
func outer(at time.Time, data, control []byte) ([]byte, error) {
	var t tree.Tree
	for _, m := range []struct {
		name string
		b    []byte
	}{{"debian-binary", []byte("2.0\n")}, {"data.tar.gz", data}, {"control.tar.gz", control}} {
		t = append(t, tree.Entry{Path: m.name, Mode: 0o644, Data: m.b})
	}
	b, _, err := t.TarGz(at)
	return b, err
}

func fields(p *feed.Package, at time.Time, size int64) string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Package", p.Name)
	field("Version", p.Version)
	field("Depends", strings.Join(p.Depends, ", "))
	field("Conflicts", strings.Join(p.Conflicts, ", "))
	field("Provides", strings.Join(p.Provides, ", "))
	field("Source", p.Source)
	field("SourceName", p.SourceName)
	field("License", p.License)
	field("LicenseFiles", p.LicenseFiles)
	field("Section", p.Section)
	field("Require-User", p.UserID)
	field("SourceDateEpoch", fmt.Sprint(at.Unix()))
	field("URL", p.URL)
	field("Maintainer", p.Maintainer)
	field("Architecture", p.Arch)
	field("Installed-Size", fmt.Sprint(size))
	return b.String()
}

func description(p *feed.Package) string {
	var b strings.Builder
	b.WriteString("Description: ")
	for i, line := range strings.Split(p.Description, "\n") {
		if i > 0 {
			b.WriteString(" ")
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// unindexed begin the fields that the build system leaves out of the index. Opkg
// takes all that begins with Source for the field Source, and writes it over others.
var unindexed = regexp.MustCompile(`(?m)^(?:Maintainer|LicenseFiles|Source|Require).*\n`)

// Entry returns what the index, Packages, says of a package and its file.
func Entry(p *feed.Package, at time.Time, file []byte) (string, error) {
	_, size, err := p.Files.TarGz(at)
	if err != nil {
		return "", err
	}
	f := unindexed.ReplaceAllString(fields(p, at, size), "")
	return f + fmt.Sprintf("Filename: %s\nSize: %d\nMD5Sum: %x\nSHA256sum: %x\n%s\n", Name(p), len(file), md5.Sum(file), sha256.Sum256(file), description(p)), nil
}
