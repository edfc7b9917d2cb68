# SPDX-License-Identifier: BSD-3-Clause
# What our Makefiles use of OpenWrt's rules.mk.

INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_DATA := install -m0644
INSTALL_CONF := install -m0600
CP := cp -fpR
