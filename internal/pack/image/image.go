// SPDX-License-Identifier: BSD-3-Clause

// Package image writes a container image of the program for several platforms, as an
// archive of the OCI image layout, without a container engine. It is the image that
// the Dockerfile beside describes.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/overflowd/overflowd/internal/pack/tree"
)

// user is nobody's on any system: that of images called nonroot.
const user = 65532

// Program is the static binary for a platform.
type Program struct {
	Arch, Variant string // in Go's words; Variant as v7, or ""
	File          string
}

// Write writes the archive. All times in it are at.
func Write(name, version string, programs []Program, at time.Time) error {
	var platforms v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		image, err := build(p, version, at)
		if err != nil {
			return fmt.Errorf("%s: %w", p.File, err)
		}
		platforms = mutate.AppendManifests(platforms, mutate.IndexAddendum{Add: image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: p.Arch, Variant: p.Variant}}})
	}
	top := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: platforms,
		Descriptor: v1.Descriptor{Annotations: map[string]string{"org.opencontainers.image.ref.name": version}}})
	dir, err := os.MkdirTemp("", "overflowd-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := layout.Write(dir, top); err != nil {
		return err
	}
	files, err := tree.Read(dir)
	if err != nil {
		return err
	}
	archive, err := files.Tar(at)
	if err != nil {
		return err
	}
	return os.WriteFile(name, archive, 0o644)
}

func build(p Program, version string, at time.Time) (v1.Image, error) {
	content, err := layer(p, at)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: at.UTC()}
	image, err := mutate.Append(base, mutate.Addendum{Layer: l, History: v1.History{Created: created, CreatedBy: "COPY overflowd /overflowd"}})
	if err != nil {
		return nil, err
	}
	c, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant, c.Created = "linux", p.Arch, p.Variant, created
	c.Config = v1.Config{
		User: fmt.Sprintf("%d:%d", user, user), WorkingDir: "/data", Env: []string{"XDG_STATE_HOME=/state"},
		Entrypoint: []string{"/overflowd"}, Volumes: map[string]struct{}{"/state": {}},
		Labels: map[string]string{"org.opencontainers.image.title": "overflowd", "org.opencontainers.image.version": version,
			"org.opencontainers.image.licenses": "BSD-3-Clause", "org.opencontainers.image.source": "https://github.com/overflowd/overflowd"},
	}
	return mutate.ConfigFile(image, c)
}

// layer returns a tar file of the program, and of the folders that its user needs:
// /data for captures, /state for the key.
func layer(p Program, at time.Time) ([]byte, error) {
	program, err := os.ReadFile(p.File)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "overflowd", Mode: 0o755, Size: int64(len(program))},
		{Typeflag: tar.TypeDir, Name: "state/", Mode: 0o700, Uid: user, Gid: user},
	} {
		h.ModTime = at
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	err = w.Close()
	return b.Bytes(), err
}
