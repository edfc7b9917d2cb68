// SPDX-License-Identifier: BSD-3-Clause

package feed

// The scripts are those that OpenWrt's package-pack.mk writes: they call the functions
// of base-files, and do nothing where these are missing. What a Makefile adds for
// after the installation is called by default_postinst of an .ipk, and follows it in
// an .apk.
const (
	noScript  = "[ \"${IPKG_NO_SCRIPT}\" = \"1\" ] && exit 0\n"
	functions = "[ -s \"${IPKG_INSTROOT}/lib/functions.sh\" ] || exit 0\n. \"${IPKG_INSTROOT}/lib/functions.sh\"\n"
)

// Script is one of a package: Name as in its control archive or its metadata.
type Script struct{ Name, Text string }

// OpkgScripts returns the scripts of an .ipk.
func (p *Package) OpkgScripts() []Script {
	scripts := []Script{
		{"postinst", "#!/bin/sh\n" + noScript + functions + "default_postinst \"$0\" \"$@\"\n"},
		{"prerm", "#!/bin/sh\n" + functions + "default_prerm \"$0\" \"$@\"\n"},
	}
	if p.Postinst != "" {
		scripts = append(scripts, Script{"postinst-pkg", "#!/bin/sh\n" + p.Postinst + "\n"})
	}
	return scripts
}

// ApkScripts returns the scripts of an .apk.
func (p *Package) ApkScripts() []Script {
	names := "export root=\"${IPKG_INSTROOT}\"\nexport pkgname=\"" + p.Name + "\"\n"
	install := noScript + functions + names + "add_group_and_user\ndefault_postinst\n"
	if p.Postinst != "" {
		install += p.Postinst + "\n"
	}
	install += "exit 0\n"
	return []Script{
		{"post-install", "#!/bin/sh\n" + install},
		{"pre-deinstall", "#!/bin/sh\n" + functions + names + "default_prerm\nexit 0\n"},
		{"pre-upgrade", "#!/bin/sh\nexport PKG_UPGRADE=1\nexit 0\n"},
		{"post-upgrade", "#!/bin/sh\nexport PKG_UPGRADE=1\n" + install},
	}
}
