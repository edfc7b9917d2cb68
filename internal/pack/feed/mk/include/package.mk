# SPDX-License-Identifier: BSD-3-Clause
# What our Makefiles use of OpenWrt's package.mk: the package that is called PACKAGE
# is installed into STAGE/root, and what is said of it is written beside, a file a
# field.

.PHONY: stage

stage-field = $(file >$(STAGE)/$(1),$(2))

BuildPackage = $(if $(filter $(PACKAGE),$(1)),$(eval $(Package/$(1)))$(eval $(call stage-rule,$(1))))

define stage-rule
stage:
	mkdir -p $(STAGE)/root
$(call Package/$(1)/install,$(STAGE)/root)
	$$(call stage-field,version,$(or $(VERSION),$(PKG_VERSION)))
	$$(call stage-field,release,$(PKG_RELEASE))
	$$(call stage-field,title,$$(TITLE))
	$$(call stage-field,depends,$$(DEPENDS))
	$$(call stage-field,provides,$$(PROVIDES))
	$$(call stage-field,conflicts,$$(CONFLICTS))
	$$(call stage-field,license,$$(PKG_LICENSE))
	$$(call stage-field,license_files,$$(PKG_LICENSE_FILES))
	$$(call stage-field,section,$$(SECTION))
	$$(call stage-field,url,$$(URL))
	$$(call stage-field,maintainer,$$(PKG_MAINTAINER))
	$$(call stage-field,userid,$$(USERID))
	$$(call stage-field,source_name,$$(PKG_NAME))
	$$(call stage-field,default,$$(DEFAULT_VARIANT))
	$$(call stage-field,arch,$$(PKGARCH))
	$$(call stage-field,conffiles,$$(Package/$(1)/conffiles))
	$$(call stage-field,postinst,$$(Package/$(1)/postinst))
	$$(call stage-field,description,$$(Package/$(1)/description))
endef
