// SPDX-License-Identifier: BSD-3-Clause

package feed

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOurPackages: what the Makefile of the feed makes of a program.
func TestOurPackages(t *testing.T) {
	binaries := t.TempDir()
	if err := os.WriteFile(filepath.Join(binaries, "overflowd"), []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, variant := range []string{"full", "mini"} {
		name := map[string]string{"full": "overflowd", "mini": "overflowd-mini"}[variant]
		p, err := Read(Options{Makefile: "../../../openwrt/overflowd", Name: name, Variant: variant, Arch: "mips_24kc", Binaries: binaries})
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, e := range p.Files {
			if !e.Mode.IsDir() {
				files = append(files, e.Mode.String()+" /"+e.Path)
			}
		}
		want := []string{
			"-rw-r--r-- /etc/capabilities/overflowd-nat.json", "-rw-r--r-- /etc/capabilities/overflowd.json",
			"-rw------- /etc/config/overflowd", "-rwxr-xr-x /etc/init.d/overflowd",
			"-rw-r--r-- /lib/upgrade/keep.d/" + name, "-rwxr-xr-x /usr/bin/overflowd",
		}
		if diff := cmp.Diff(want, files); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
		// The folder of the key is no file of the package: without the list a sysupgrade
		// would forget it.
		if keep := string(p.Files.Find("/lib/upgrade/keep.d/" + name).Data); keep != "/etc/overflowd/\n" {
			t.Errorf("%s: a sysupgrade keeps %q", name, keep)
		}
		if diff := cmp.Diff([]string{"/etc/config/overflowd"}, p.Configuration()); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", name, diff)
		}
		if p.Default != (variant == "full") || p.Arch != "mips_24kc" || !strings.HasSuffix(p.Version, "-r1") || p.UserID != "overflowd=7777:overflowd=7777" ||
			len(p.Depends) != 0 || strings.Join(p.Provides, " ") != map[string]string{"mini": "overflowd"}[variant] {
			t.Errorf("%+v", p)
		}
	}
}

// TestTheLuciPackage: rpcd has to read what it brings, or the page stays unknown until
// the router starts anew.
func TestTheLuciPackage(t *testing.T) {
	p, err := Read(Options{Makefile: "../../../openwrt/luci-app-overflowd", Name: "luci-app-overflowd", Arch: "mips_24kc", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Arch != "all" || p.Version != "1.2.3-r1" {
		t.Errorf("%s %s", p.Arch, p.Version)
	}
	if diff := cmp.Diff([]string{"luci-base", "overflowd", "rpcd-mod-ucode", "ucode-mod-socket"}, p.Depends); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const reload = "\n\t/etc/init.d/rpcd reload 2>/dev/null\n"
	for _, scripts := range [][]Script{p.OpkgScripts(), p.ApkScripts()} {
		var reloads []string
		for _, s := range scripts {
			if strings.Contains(s.Text, reload) {
				reloads = append(reloads, s.Name)
			}
		}
		want := map[int]string{3: "postinst-pkg", 4: "post-install post-upgrade"}[len(scripts)]
		if got := strings.Join(reloads, " "); got != want {
			t.Errorf("rpcd reloads in %q, want %q", got, want)
		}
	}
}
