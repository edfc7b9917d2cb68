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
endef

$(eval $(call BuildPackage,$(PKG_NAME)))
