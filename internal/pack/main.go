// SPDX-License-Identifier: BSD-3-Clause

// Pack writes the packages of a release: see the targets of the Makefile.
package main

import (
	"crypto/ecdsa"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/pack/adb"
	"github.com/overflowd/overflowd/internal/pack/apk"
	"github.com/overflowd/overflowd/internal/pack/deb"
	"github.com/overflowd/overflowd/internal/pack/feed"
	"github.com/overflowd/overflowd/internal/pack/image"
	"github.com/overflowd/overflowd/internal/pack/ipk"
	"github.com/overflowd/overflowd/internal/pack/tree"
	"github.com/overflowd/overflowd/internal/pack/usign"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("pack", flag.ContinueOnError)
	root := fs.String("root", "../..", "the folder of the `project`")
	out := fs.String("out", "", "the `folder or file` to write to")
	version := fs.String("version", "", "of the image")
	arch := fs.String("arch", "", "OpenWrt's name of the `architecture`")
	binaries := fs.String("binaries", "", "the `folder` with overflowd and overflowd-mini, each in a folder of its name")
	usignKey := fs.String("usign-key", "", "the private key `file` of usign that signs Packages")
	apkKey := fs.String("apk-key", "", "the PEM `file` of an elliptic-curve key that signs packages.adb and each .apk")
	epoch := fs.Int64("epoch", 0, "the time of all files, `seconds` since 1970")
	if err := fs.Parse(args); err != nil {
		return err
	}
	at := time.Unix(*epoch, 0)
	switch {
	case fs.Arg(0) == "openwrt" && *out != "" && *arch != "" && *binaries != "":
		k, err := readKeys(*usignKey, *apkKey)
		if err != nil {
			return err
		}
		return openwrt(*root, *out, *arch, *binaries, at, k)
	case fs.Arg(0) == "image" && *out != "" && *binaries != "":
		return image.Write(*out, *version, []image.Program{
			{Arch: "amd64", File: filepath.Join(*binaries, "x86_64/overflowd/overflowd")},
			{Arch: "arm64", Variant: "v8", File: filepath.Join(*binaries, "aarch64_cortex-a53/overflowd/overflowd")},
			{Arch: "arm", Variant: "v7", File: filepath.Join(*binaries, "arm_cortex-a7_neon-vfpv4/overflowd/overflowd")},
		}, at)
	}
	if fs.Arg(0) == "deb" && *out != "" && *binaries != "" {
		return debian(*root, *out, *binaries, *version, at)
	}
	return errors.New("usage: pack -out FOLDER -arch NAME -binaries FOLDER openwrt; pack -out FILE|FOLDER -binaries FOLDER -version VERSION image|deb")
}

// debian writes the packages for Debian.
func debian(root, out, binaries, version string, at time.Time) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for arch, programs := range map[string]string{"amd64": "x86_64", "arm64": "aarch64_cortex-a53", "armhf": "arm_cortex-a7_neon-vfpv4", "armel": "arm_arm926ej-s"} {
		for _, name := range []string{"overflowd", "overflow-receiver"} {
			o := deb.Options{Name: name, Root: root, Program: filepath.Join(binaries, programs, name, name), Arch: arch, Version: version, At: at}
			b, err := deb.Build(o)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(out, o.File()), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// keys sign; each may be nil.
type keys struct {
	usign *usign.Key
	apk   *ecdsa.PrivateKey
}

func readKeys(usignFile, apkFile string) (k keys, err error) {
	if usignFile != "" {
		b, err := os.ReadFile(usignFile)
		if err == nil {
			k.usign, err = usign.ParseKey(b)
		}
		if err != nil {
			return k, fmt.Errorf("-usign-key %s: %w", usignFile, err)
		}
	}
	if apkFile != "" {
		b, err := os.ReadFile(apkFile)
		if err == nil {
			k.apk, err = adb.ParseKey(b)
		}
		if err != nil {
			return k, fmt.Errorf("-apk-key %s: %w", apkFile, err)
		}
	}
	return k, nil
}

// openwrt writes the packages for one architecture, and those for any.
func openwrt(root, out, arch, binaries string, at time.Time, k keys) error {
	var packages []*feed.Package
	for _, o := range []feed.Options{
		{Makefile: "overflowd", Name: "overflowd", Variant: "full"},
		{Makefile: "overflowd", Name: "overflowd-mini", Variant: "mini"},
		{Makefile: "luci-app-overflowd", Name: "luci-app-overflowd"},
	} {
		o.Makefile = filepath.Join(root, "openwrt", o.Makefile)
		if _, err := os.Stat(o.Makefile); errors.Is(err, os.ErrNotExist) {
			continue
		}
		o.Arch, o.Binaries = arch, filepath.Join(binaries, o.Name)
		if len(packages) > 0 {
			o.Version, _, _ = strings.Cut(packages[0].Version, "-r")
		}
		p, err := feed.Read(o)
		if err != nil {
			return err
		}
		packages = append(packages, p)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	return errors.Join(writeIpks(out, packages, at, k.usign), writeApks(out, packages, k.apk))
}

func writeIpks(out string, packages []*feed.Package, at time.Time, key *usign.Key) error {
	var index strings.Builder
	for _, p := range packages {
		b, err := ipk.Build(p, at)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		entry, err := ipk.Entry(p, at, b)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		index.WriteString(entry)
		if err := os.WriteFile(filepath.Join(out, ipk.Name(p)), b, 0o644); err != nil {
			return err
		}
	}
	// The usign of old routers miscounts at these lengths of what is signed.
	if n := (64 + index.Len()) % 128; n == 110 || n == 111 {
		index.WriteString("\n\n")
	}
	if key != nil {
		if err := os.WriteFile(filepath.Join(out, "Packages.sig"), key.Sign([]byte(index.String())), 0o644); err != nil {
			return err
		}
	}
	compressed, err := tree.Gzip([]byte(index.String()))
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(out, "Packages"), []byte(index.String()), 0o644),
		os.WriteFile(filepath.Join(out, "Packages.gz"), compressed, 0o644))
}

func writeApks(out string, packages []*feed.Package, key *ecdsa.PrivateKey) error {
	var indexed []apk.Indexed
	for _, p := range packages {
		built := apk.Build(p)
		b, err := deflated(built.Container, key)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		if err := os.WriteFile(filepath.Join(out, apk.Name(p)), b, 0o644); err != nil {
			return err
		}
		indexed = append(indexed, apk.Indexed{Built: built, FileSize: len(b)})
	}
	b, err := deflated(apk.Index(indexed), key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "packages.adb"), b, 0o644)
}

// deflated returns a container, signed if there is a key.
func deflated(f *adb.File, key *ecdsa.PrivateKey) ([]byte, error) {
	if key != nil {
		if err := f.Sign(key); err != nil {
			return nil, err
		}
	}
	return f.Deflated()
}
