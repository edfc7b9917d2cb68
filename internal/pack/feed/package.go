// SPDX-License-Identifier: BSD-3-Clause

// Package feed reads the Makefiles under openwrt/ as the OpenWrt build system does,
// with GNU make: they are the one place that says what is in a package. What stands
// in for the build system is in mk/.
package feed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/overflowd/overflowd/internal/pack/tree"
)

// Package is what a Makefile says of one.
type Package struct {
	Name, Version                               string // Version as 1.2.3-r1
	Title, Description                          string
	Depends, Provides, Conflicts                []string
	License, LicenseFiles, Section              string
	URL, Maintainer, UserID, Source, SourceName string
	Postinst                                    string   // shell, without a first line
	Conffiles                                   []string // absolute paths; folders end with a slash
	Default                                     bool     // of the variants
	Arch                                        string   // "all" if it is for any
	Files                                       tree.Tree
}

// Options of Read.
type Options struct {
	Makefile string // its folder
	Name     string // of the package
	Variant  string // that is built
	Arch     string // OpenWrt's name of it
	Binaries string // the folder of the programs
	Version  string // of those whose Makefile does not tell
}

// Read evaluates the Makefile, and has it install the package.
func Read(o Options) (*Package, error) {
	stage, err := os.MkdirTemp("", "overflowd-feed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(stage)
	mk, err := filepath.Abs("feed/mk")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(mk); err != nil {
		mk, err = filepath.Abs("mk") // in tests
		if err != nil {
			return nil, err
		}
	}
	binaries, err := filepath.Abs(o.Binaries)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("make", "-s", "-C", o.Makefile, "-I", mk+"/lang/golang",
		"TOPDIR="+mk, "INCLUDE_DIR="+mk+"/include", "STAGE="+stage, "PACKAGE="+o.Name,
		"BUILD_VARIANT="+o.Variant, "GO_PKG_BUILD_BIN_DIR="+binaries, "LUCI_VERSION="+o.Version, "stage")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make in %s: %w: %s", o.Makefile, err, out)
	}
	field := func(name string) string {
		b, e := os.ReadFile(filepath.Join(stage, name))
		if e != nil && err == nil {
			err = fmt.Errorf("%s tells no package %s: %w", o.Makefile, o.Name, e)
		}
		return strings.TrimSpace(string(b))
	}
	words := func(name string) []string { return strings.Fields(field(name)) }
	p := &Package{
		Name: o.Name, Version: field("version") + "-r" + field("release"), Title: field("title"), Description: field("description"),
		Provides: words("provides"), Conflicts: words("conflicts"),
		License: field("license"), LicenseFiles: field("license_files"), Section: field("section"), URL: field("url"), Maintainer: field("maintainer"),
		UserID: field("userid"), Source: "openwrt/" + filepath.Base(o.Makefile), SourceName: field("source_name"),
		Conffiles: words("conffiles"), Postinst: field("postinst"), Default: field("default") == "1", Arch: field("arch"),
	}
	for _, d := range words("depends") {
		// "+name" also selects the name in the menu; "@..." only shows the package there.
		if name := strings.TrimPrefix(d, "+"); !strings.HasPrefix(name, "@") {
			p.Depends = append(p.Depends, name)
		}
	}
	if p.Arch == "" {
		p.Arch = o.Arch
	}
	if err != nil {
		return nil, err
	}
	if p.Files, err = tree.Read(filepath.Join(stage, "root")); err != nil {
		return nil, err
	}
	p.keep()
	return p, nil
}

// keep has a sysupgrade keep those configuration files that are not in the package
// (package-pack.mk of OpenWrt: those that are, it keeps anyway).
func (p *Package) keep() {
	var list strings.Builder
	for _, c := range p.Conffiles {
		if !p.hasFile(c) {
			fmt.Fprintln(&list, c)
		}
	}
	if list.Len() > 0 {
		p.Files.Add("lib/upgrade/keep.d/"+p.Name, 0o644, []byte(list.String()))
	}
}

func (p *Package) hasFile(name string) bool {
	e := p.Files.Find(name)
	return e != nil && e.Mode.IsRegular()
}

// Configuration returns the configuration files that are in the package.
func (p *Package) Configuration() (all []string) {
	for _, c := range p.Conffiles {
		if p.hasFile(c) {
			all = append(all, c)
		}
	}
	return all
}
