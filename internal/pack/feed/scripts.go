// SPDX-License-Identifier: BSD-3-Clause

package feed

// The scripts are those that OpenWrt's package-pack.mk writes: all they do is to
// call the functions of base-files, and nothing where these are missing.
const (
	noScript  = "[ \"${IPKG_NO_SCRIPT}\" = \"1\" ] && exit 0\n"
	functions = "[ -s \"${IPKG_INSTROOT}/lib/functions.sh\" ] || exit 0\n. \"${IPKG_INSTROOT}/lib/functions.sh\"\n"
)

// Script is one of a package: Name as in its control archive or its metadata.
type Script struct{ Name, Text string }

// OpkgScripts returns the scripts of an .ipk.
func (p *Package) OpkgScripts() []Script {
	return []Script{
		{"postinst", "#!/bin/sh\n" + noScript + functions + "default_postinst \"$0\" \"$@\"\n"},
		{"prerm", "#!/bin/sh\n" + functions + "default_prerm \"$0\" \"$@\"\n"},
	}
}

// ApkScripts returns the scripts of an .apk.
func (p *Package) ApkScripts() []Script {
	names := "export root=\"${IPKG_INSTROOT}\"\nexport pkgname=\"" + p.Name + "\"\n"
	install := noScript + functions + names + "add_group_and_user\ndefault_postinst\nexit 0\n"
	return []Script{
		{"post-install", "#!/bin/sh\n" + install},
		{"pre-deinstall", "#!/bin/sh\n" + functions + names + "default_prerm\nexit 0\n"},
		{"pre-upgrade", "#!/bin/sh\nexport PKG_UPGRADE=1\nexit 0\n"},
		{"post-upgrade", "#!/bin/sh\nexport PKG_UPGRADE=1\n" + install},
	}
}
