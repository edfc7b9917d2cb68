// SPDX-License-Identifier: BSD-3-Clause

package ipk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/overflowd/overflowd/internal/pack/feed"
)

var at = time.Unix(1_795_000_000, 0)

func sample() *feed.Package {
	p := &feed.Package{Name: "sample", Version: "1.2.3-r4", Description: "A sample\nof two lines.", Arch: "mips_24kc", License: "BSD-3-Clause",
		Section: "net", UserID: "sample=7:sample=7", Depends: []string{"a", "b"}, Conffiles: []string{"/etc/config/sample", "/etc/sample/"}}
	p.Files.Add("usr/bin/sample", 0o755, []byte("#!/bin/sh\n"))
	p.Files.Add("etc/config/sample", 0o600, []byte("config sample\n"))
	return p
}

// list returns what is in a tar file, a line a member as GNU tar shows it, and the
// members' contents.
func list(t *testing.T, file []byte) (lines string, contents map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "x.tar.gz")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--utc", "--numeric-owner", "-tvzf", name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if z.Name != "" || !z.ModTime.IsZero() {
		t.Errorf("gzip says the name %q and the time %v", z.Name, z.ModTime)
	}
	contents = map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return string(out), contents
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		contents[h.Name] = b
	}
}

func TestAnIpk(t *testing.T) {
	file, err := Build(sample(), at)
	if err != nil {
		t.Fatal(err)
	}
	lines, members := list(t, file)
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		names = append(names, line[strings.LastIndexByte(line, ' ')+1:])
	}
	if diff := cmp.Diff([]string{"./", "./debian-binary", "./data.tar.gz", "./control.tar.gz"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := string(members["./debian-binary"]); got != "2.0\n" {
		t.Errorf("debian-binary is %q", got)
	}
	data, contents := list(t, members["./data.tar.gz"])
	want := `drwxr-xr-x 0/0               0 2026-11-18 11:06 ./
drwxr-xr-x 0/0               0 2026-11-18 11:06 ./etc/
drwxr-xr-x 0/0               0 2026-11-18 11:06 ./etc/config/
-rw------- 0/0              14 2026-11-18 11:06 ./etc/config/sample
drwxr-xr-x 0/0               0 2026-11-18 11:06 ./usr/
drwxr-xr-x 0/0               0 2026-11-18 11:06 ./usr/bin/
-rwxr-xr-x 0/0              10 2026-11-18 11:06 ./usr/bin/sample
`
	if diff := cmp.Diff(want, data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := string(contents["./usr/bin/sample"]); got != "#!/bin/sh\n" {
		t.Errorf("the program is %q", got)
	}
	_, control := list(t, members["./control.tar.gz"])
	got := map[string]string{}
	for name, b := range control {
		got[name] = string(b)
	}
	wantControl := map[string]string{
		"./": "",
		"./control": `Package: sample
Version: 1.2.3-r4
Depends: a, b
License: BSD-3-Clause
Section: net
Require-User: sample=7:sample=7
SourceDateEpoch: 1795000000
Architecture: mips_24kc
Installed-Size: 5632
Description: A sample
 of two lines.
`,
		"./conffiles": "/etc/config/sample\n",
		"./postinst": `#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "${IPKG_INSTROOT}/lib/functions.sh"
default_postinst "$0" "$@"
`,
		"./prerm": `#!/bin/sh
[ -s "${IPKG_INSTROOT}/lib/functions.sh" ] || exit 0
. "${IPKG_INSTROOT}/lib/functions.sh"
default_prerm "$0" "$@"
`,
	}
	if diff := cmp.Diff(wantControl, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheIndexOfAFeed(t *testing.T) {
	p := sample()
	p.Maintainer, p.Source, p.SourceName, p.LicenseFiles = "Somebody <somebody@example.net>", "openwrt/sample", "sample", "LICENSE"
	entry, err := Entry(p, at, []byte("the file"))
	if err != nil {
		t.Fatal(err)
	}
	// The sums are those of md5sum and sha256sum.
	for _, line := range []string{"Package: sample\n", "Filename: sample_1.2.3-r4_mips_24kc.ipk\n", "Size: 8\n", fmt.Sprintf("MD5Sum: %s\n", sum(t, "md5sum")),
		fmt.Sprintf("SHA256sum: %s\n", sum(t, "sha256sum")), "Description: A sample\n of two lines.\n\n"} {
		if !strings.Contains(entry, line) {
			t.Errorf("%q is not in:\n%s", line, entry)
		}
	}
	for _, name := range []string{"Maintainer", "Source", "SourceName", "SourceDateEpoch", "LicenseFiles", "Require-User"} {
		if strings.Contains(entry, name+":") {
			t.Errorf("%s is in:\n%s", name, entry)
		}
	}
}

func sum(t *testing.T, program string) string {
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader("the file")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[0]
}
