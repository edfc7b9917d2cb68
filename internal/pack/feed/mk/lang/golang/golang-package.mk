# SPDX-License-Identifier: BSD-3-Clause
# What our Makefiles use of the packages feed's golang-package.mk. The programs are
# there already.

GO_ARCH_DEPENDS :=

GoPackage/Package/Install/Bin = $(INSTALL_DIR) $(1)/usr/bin/ && $(INSTALL_BIN) $(GO_PKG_BUILD_BIN_DIR)/* $(1)/usr/bin/
