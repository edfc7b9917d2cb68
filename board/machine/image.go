// SPDX-License-Identifier: BSD-3-Clause

package machine

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
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// initramfs writes one that has files, and the folders they are in.
func initramfs(path string, files map[string]string) error {
	var image bytes.Buffer
	z := gzip.NewWriter(&image)
	w := cpio.NewWriter(z)
	folders := []string{"dev", "proc", "sys", "tmp", "run"}
	var names []string
	for n := range files {
		names = append(names, n)
		if d := filepath.Dir(n); d != "." {
			folders = append(folders, d)
		}
	}
	slices.Sort(folders)
	for _, f := range slices.Compact(folders) {
		if err := w.WriteHeader(&cpio.Header{Name: f, Mode: cpio.TypeDir | 0o755, Links: 2}); err != nil {
			return err
		}
	}
	slices.Sort(names)
	for _, n := range names {
		b, err := os.ReadFile(files[n])
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&cpio.Header{Name: n, Mode: cpio.TypeReg | 0o755, Size: int64(len(b)), Links: 1}); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return err
	}
	return os.WriteFile(path, image.Bytes(), 0o644)
}

// unpack writes the files of a package of opkg below dir, as opkg does.
func unpack(ipk, dir string) error {
	b, err := os.ReadFile(ipk)
	if err != nil {
		return err
	}
	data, err := member(b, "./data.tar.gz")
	if err != nil {
		return fmt.Errorf("%s: %w", ipk, err)
	}
	c := exec.Command("tar", "-xz", "-C", dir)
	c.Stdin = bytes.NewReader(data)
	if said, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", ipk, err, said)
	}
	return nil
}

func member(archive []byte, name string) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
		if h.Name == name {
			return io.ReadAll(t)
		}
	}
}

// accounts are those that a router has, and the one that the package asks for.
const accounts = `root:x:0:0:root:/root:/bin/ash
nobody:*:65534:65534:nobody:/var:/bin/false
overflowd:x:%[1]s:%[1]s:overflowd:/var/run/overflowd:/bin/false
`

// Unpack returns a folder, which the caller removes, with the files of a root and those
// of a package, as overflowd or overflowd-mini, which lies in the folder
// packages/ARCHITECTURE.
func (b *Board) Unpack(packages, name string) (root string, err error) {
	found, err := filepath.Glob(filepath.Join(packages, b.Packages, name+"_*.ipk"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%d packages %s for %s in %s: make boards makes it", len(found), name, b.Packages, packages)
	}
	root, err = os.MkdirTemp("", "overflowd-root")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(root)
		}
	}()
	if err := os.Chmod(root, 0o755); err != nil {
		return "", err
	}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "run", "etc", "var", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := unpack(found[0], root); err != nil {
		return "", err
	}
	text, err := controlFile(found[0])
	if err != nil {
		return "", err
	}
	_, user, ok := strings.Cut(text, "Require-User: overflowd=")
	user, _, ends := strings.Cut(user, ":")
	if !ok || !ends {
		return "", fmt.Errorf("%s requires no user", found[0])
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), fmt.Appendf(nil, accounts, user), 0o644); err != nil {
		return "", err
	}
	return root, os.Symlink("../run", filepath.Join(root, "var/run"))
}

// Squashfs returns the file of a root that Unpack makes.
func (b *Board) Squashfs(packages, name string) (string, error) {
	root, err := b.Unpack(packages, name)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(root)
	image, err := os.CreateTemp("", "overflowd-squashfs")
	if err != nil {
		return "", err
	}
	image.Close()
	// Routers have xz, which takes half of an emulated processor's time until a program runs.
	c := exec.Command("mksquashfs", root, image.Name(), "-comp", "gzip", "-b", "256k", "-noappend", "-all-root", "-no-progress", "-quiet")
	if said, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mksquashfs: %w: %s", err, said)
	}
	return image.Name(), nil
}

// controlFile returns the control file of a package.
func controlFile(ipk string) (string, error) {
	b, err := os.ReadFile(ipk)
	if err != nil {
		return "", err
	}
	b, err = member(b, "./control.tar.gz")
	if err != nil {
		return "", err
	}
	b, err = member(b, "./control")
	return string(b), err
}

// The flash of malta, 4 MiB: what it boots from, the root and what is laid over it.
// That of the others is a disk of the same size as the latter.
const (
	flashSize   = 4 << 20
	bootSize    = 64 << 10
	overlaySize = 768 << 10
	eraseSize   = 64 << 10
)

// NewFlash writes a flash with a root and an empty overlay at path. Erased flash is all
// ones.
func (b *Board) NewFlash(squashfs, path string) error {
	root, err := os.ReadFile(squashfs)
	if err != nil {
		return err
	}
	if b.Flash != "pflash" {
		return os.WriteFile(path, bytes.Repeat([]byte{0xff}, overlaySize), 0o644)
	}
	image := bytes.Repeat([]byte{0xff}, flashSize)
	if len(root) > flashSize-bootSize-overlaySize {
		return fmt.Errorf("the root has %d bytes, and the flash is for %d", len(root), flashSize-bootSize-overlaySize)
	}
	copy(image[bootSize:], root)
	return os.WriteFile(path, image, 0o644)
}

// partitions is what the kernel's command line says of them.
func (b *Board) partitions() string {
	if b.Flash == "pflash" {
		return fmt.Sprintf("mtdparts=1e000000.flash:%d(boot)ro,%d(rootfs)ro,%d(rootfs_data)", bootSize, flashSize-bootSize-overlaySize, overlaySize)
	}
	return fmt.Sprintf("block2mtd.block2mtd=/dev/vdb,%d", eraseSize)
}
