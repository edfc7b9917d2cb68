// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// architectures are those of make openwrt, and the emulator of each.
var architectures = map[string][]string{
	"mips_24kc=mips":                 {"qemu-mips-static", "-cpu", "24Kc"},
	"mipsel_24kc=mipsle":             {"qemu-mipsel-static", "-cpu", "24Kc"},
	"arm_cortex-a7_neon-vfpv4=arm/7": {"qemu-arm-static", "-cpu", "cortex-a7"},
	"arm_arm926ej-s=arm/5":           {"qemu-arm-static", "-cpu", "arm926"},
	"aarch64_cortex-a53=arm64":       {"qemu-aarch64-static", "-cpu", "cortex-a53"},
	"x86_64=amd64":                   {"qemu-x86_64-static"},
}

// build runs make openwrt of the tree at root, and returns where the packages are.
func build(t *testing.T, root, umask string, arguments ...string) string {
	t.Helper()
	dist := t.TempDir()
	cmd := exec.Command("sh", append([]string{"-c", "umask " + umask + ` && exec make -s -C "$@"`, "make", root, "openwrt", "DIST=" + dist}, arguments...)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1795000000", "MAKEFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make openwrt: %v\n%s", err, out)
	}
	return filepath.Join(dist, "openwrt")
}

// packages returns the files of an architecture by their names.
func packages(t *testing.T, dist, arch string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dist, arch, "*"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		files[filepath.Base(name)] = []byte(read(t, name))
	}
	return files
}

// member returns a file of a compressed tar file.
func member(t *testing.T, archive []byte, name string) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if path.Clean(h.Name) == name {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
}

// TestPackages: each packed program says its version within 10 seconds, as the feed's
// own check of executables wants it; what goes to a router of little flash is small
// enough; and a build of the same tree in another place, under another umask, is the
// same to the byte.
func TestPackages(t *testing.T) {
	const root = "../.."
	makefile := read(t, root+"/openwrt/overflowd/Makefile")
	_, version, _ := strings.Cut(makefile, "PKG_VERSION:=")
	version, _, _ = strings.Cut(version, "\n")
	dist := build(t, root, "022")

	for name, emulator := range architectures {
		arch, _, _ := strings.Cut(name, "=")
		files := packages(t, dist, arch)
		for _, program := range []string{"overflowd", "overflowd-mini"} {
			ipk := files[program+"_"+version+"-r1_"+arch+".ipk"]
			if len(ipk) == 0 || len(files[program+"-"+version+"-r1.apk"]) == 0 {
				t.Errorf("%s: no packages of %s", arch, program)
				continue
			}
			binary := filepath.Join(t.TempDir(), program)
			if err := os.WriteFile(binary, member(t, member(t, ipk, "data.tar.gz"), "usr/bin/overflowd"), 0o755); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			out, err := exec.CommandContext(ctx, emulator[0], append(emulator[1:], binary, "--version")...).CombinedOutput()
			cancel()
			if want := "overflowd " + version + "\n"; err != nil || string(out) != want {
				t.Errorf("%s, %s --version: %v, %q", arch, program, err, out)
			}
		}
		if arch == "mips_24kc" {
			for program, most := range map[string]int{"overflowd-mini": 1_500_000, "overflowd": 2_800_000} {
				size := len(files[program+"_"+version+"-r1_"+arch+".ipk"])
				t.Logf("%s: %d bytes", program, size)
				if size > most {
					t.Errorf("the .ipk of %s is %d bytes, more than %d", program, size, most)
				}
			}
		}
	}

	const twice = "mips_24kc"
	again := packages(t, build(t, elsewhere(t, root), "077", "ARCHITECTURES="+twice+"=mips"), twice)
	first := packages(t, dist, twice)
	if len(again) != len(first) || len(first) < 9 {
		t.Errorf("%d files, then %d", len(first), len(again))
	}
	for name, b := range first {
		if !bytes.Equal(b, again[name]) {
			t.Errorf("%s is another one if it is built again", name)
		}
	}
}

// elsewhere copies the tree, and returns where to.
func elsewhere(t *testing.T, root string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (relative == ".git" || relative == "bin" || relative == "dist"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, relative), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, relative), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}
