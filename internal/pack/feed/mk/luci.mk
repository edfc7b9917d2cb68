# SPDX-License-Identifier: BSD-3-Clause
# What our Makefiles use of the luci feed's luci.mk.

include $(TOPDIR)/rules.mk
include $(INCLUDE_DIR)/package.mk

PKG_NAME ?= $(notdir $(CURDIR))
PKG_VERSION ?= $(LUCI_VERSION)
PKG_RELEASE ?= 1

define Package/$(PKG_NAME)
  SECTION:=luci
  TITLE:=$(LUCI_TITLE)
  DEPENDS:=$(LUCI_DEPENDS)
  URL:=$(LUCI_URL)
  PKGARCH:=all
endef

Package/$(PKG_NAME)/description = $(or $(LUCI_DESCRIPTION),$(LUCI_TITLE))

define Package/$(PKG_NAME)/install
	$(if $(wildcard htdocs),$(INSTALL_DIR) $(1)/www/ && cp -R htdocs/. $(1)/www/)
	$(if $(wildcard root),cp -R root/. $(1)/)
	chmod -R u=rwX,go=rX $(1)
endef

# The menu is read again, and by rpcd the permissions and the plug-in.
define Package/$(PKG_NAME)/postinst
[ -n "$${IPKG_INSTROOT}" ] || { \
	rm -f /tmp/luci-indexcache.*
	rm -rf /tmp/luci-modulecache/
	/etc/init.d/rpcd reload 2>/dev/null
	exit 0
}
endef

$(eval $(call BuildPackage,$(PKG_NAME)))
