// SPDX-License-Identifier: BSD-3-Clause

package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestTheImageOfEachPlatform unpacks the archive with GNU tar, and checks all sums of it.
func TestTheImageOfEachPlatform(t *testing.T) {
	dir := t.TempDir()
	program, name := filepath.Join(dir, "program"), filepath.Join(dir, "image.tar")
	if err := os.WriteFile(program, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	programs := []Program{{Arch: "amd64", File: program}, {Arch: "arm", Variant: "v7", File: program}}
	var archives [2][]byte
	for i := range archives {
		if err := Write(name, "1.2.3", programs, time.Unix(1_795_000_000, 0)); err != nil {
			t.Fatal(err)
		}
		archives[i], _ = os.ReadFile(name)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of the same programs differ")
	}
	if out, err := exec.Command("tar", "-C", dir, "-xf", name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	m, err := top.IndexManifest()
	if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2.3" {
		t.Fatalf("%v: %+v", err, m)
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = index.IndexManifest(); err != nil || len(m.Manifests) != len(programs) {
		t.Fatalf("%v: %+v", err, m)
	}
	for i, d := range m.Manifests {
		if d.Platform.OS != "linux" || d.Platform.Architecture != programs[i].Arch || d.Platform.Variant != programs[i].Variant {
			t.Errorf("platform %+v", d.Platform)
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		c, err := image.ConfigFile()
		if err != nil || c.Architecture != programs[i].Arch || c.Config.User != "65532:65532" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/overflowd" {
			t.Errorf("%v: %+v", err, c)
		}
		cmd := exec.Command("tar", "--utc", "--numeric-owner", "-tv")
		cmd.Stdin = mutate.Extract(image)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := `drwxr-xr-x 0/0               0 2026-11-18 11:06 data
-rwxr-xr-x 0/0               7 2026-11-18 11:06 overflowd
drwx------ 65532/65532       0 2026-11-18 11:06 state
`
		if diff := cmp.Diff(want, string(out)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
