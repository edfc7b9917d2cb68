// SPDX-License-Identifier: BSD-3-Clause

package apk

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/overflowd/overflowd/internal/pack/feed"
	"github.com/overflowd/overflowd/internal/pack/tree"
)

// sample has what a package may have, and sizes of which each form of a number and of
// a blob comes.
func sample() *feed.Package {
	p := &feed.Package{
		Name: "sample", Version: "1.2.3-r4", Description: "A sample\nof more " + strings.Repeat("words ", 60), Arch: "all",
		License: "BSD-3-Clause", Section: "net", URL: "https://example.net/", Maintainer: "Somebody <somebody@example.net>",
		UserID: "sample=7777:sample=7777", Source: "openwrt/sample", Depends: []string{"zlib", "libc", "ucode-mod-socket"},
		Provides: []string{"example"}, Default: true, Conffiles: []string{"/etc/config/sample", "/etc/sample/"},
	}
	p.Files.Add("etc/config/sample", 0o600, []byte("config sample\n"))
	p.Files.Add("usr/bin/sample", 0o755, bytes.Repeat([]byte("0123456789abcdef"), 5000))
	p.Files.Add("usr/bin/empty", 0o644, nil)
	p.Files.Add("usr/bin-more/x", 0o644, []byte("x"))
	p.Files = append(p.Files, tree.Entry{Path: "usr/link", Mode: fs.ModeSymlink | 0o777, Target: "bin/sample"})
	p.Files.Add("top", 0o640, []byte("in the root"))
	return p
}

// recorded is the SHA-256 of what "apk mkpkg --compression none" of apk-tools 3.0.5
// wrote of the sample's files, with SOURCE_DATE_EPOCH=0.
const recorded = "2bc95a2b130113ef8f5c838a57536436433e6a3f0e6ee6d5cdb630984b894fb6"

func TestAPackageIsWhatApkMakes(t *testing.T) {
	b := Build(sample())
	sum := sha256.Sum256(b.Container.Plain())
	if got := hex.EncodeToString(sum[:]); got != recorded {
		t.Errorf("the package has the SHA-256 %s, apk's %s", got, recorded)
	}
	z, err := b.Container.Deflated()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(z, []byte("ADBd")) {
		t.Fatalf("it begins with %q", z[:4])
	}
	plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(z[4:])))
	if err != nil || !bytes.Equal(plain, b.Container.Plain()) {
		t.Errorf("%v, or not the same after decompression", err)
	}
}

// TestWithApk compares with the apk that is named by APK, if one is.
func TestWithApk(t *testing.T) {
	apk := os.Getenv("APK")
	if apk == "" {
		t.Log("APK names no apk-tools 3: TestAPackageIsWhatApkMakes has a record of what it writes")
		return
	}
	p := sample()
	root, dir := t.TempDir(), t.TempDir()
	os.Chmod(root, 0o755)
	for _, e := range metadata(p) {
		name := filepath.Join(root, e.Path)
		var err error
		switch e.Mode.Type() {
		case fs.ModeDir:
			err = os.Mkdir(name, 0o755)
		case fs.ModeSymlink:
			err = os.Symlink(e.Target, name)
		default:
			if err = os.WriteFile(name, e.Data, e.Mode); err == nil {
				err = os.Chmod(name, e.Mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	i := describe(p)
	args := []string{"mkpkg", "--compression", "none", "--files", root, "--output", filepath.Join(dir, "x.apk")}
	for _, f := range [][2]string{
		{"name", i.name}, {"version", i.version}, {"description", i.description}, {"arch", i.arch}, {"license", i.license}, {"origin", i.origin},
		{"url", i.url}, {"maintainer", i.maintainer}, {"tags", strings.Join(i.tags, " ")}, {"provides", strings.Join(i.provides, " ")},
		{"depends", strings.Join(i.depends, " ")}, {"provider-priority", fmt.Sprint(i.priority)},
	} {
		args = append(args, "--info", f[0]+":"+f[1])
	}
	for _, s := range p.ApkScripts() {
		name := filepath.Join(dir, s.Name)
		if err := os.WriteFile(name, []byte(s.Text), 0o755); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--script", s.Name+":"+name)
	}
	cmd := exec.Command(apk, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "x.apk"))
	if err != nil {
		t.Fatal(err)
	}
	got := Build(p).Container.Plain()
	t.Logf("apk writes %d bytes, of the SHA-256 %x", len(want), sha256.Sum256(want))
	for n := range min(len(got), len(want)) {
		if got[n] != want[n] {
			t.Fatalf("byte %d differs:\n%q\n%q", n, got[n:min(n+80, len(got))], want[n:min(n+80, len(want))])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}
