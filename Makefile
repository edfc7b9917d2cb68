# SPDX-License-Identifier: BSD-3-Clause

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -X main.version=$(VERSION)
# Inlining pays where packets and records pass, and where keys are computed, and
# makes some of the smallest functions smaller. Without it, all else is 200 kB less
# on mips, a twentieth of what is in the flash.
INLINED := $(addprefix github.com/overflowd/overflowd/internal/,capture evidence flow flowtable lru netflow packet pcapfile prefix selector sflow source) \
	$(addprefix crypto/internal/fips140,/aes/... /edwards25519/... /sha3 /sha512 deps/byteorder) \
	encoding/binary internal/byteorder sync/atomic
GCFLAGS := -gcflags=all=-l $(foreach p,$(INLINED),-gcflags=$(p)=)
# On mips segments begin at a multiple of 16 kB, the largest pages of its kernels but
# for some that no router has, and not of 64 kB: up to 96 kB less of zeros.
RELEASE := CGO_ENABLED=0 go build -trimpath -buildvcs=false $(GCFLAGS) -ldflags "-s -w $(LDFLAGS) $$(case "$$GOARCH" in mips*) echo -R 16384;; esac)"

# Of a server, which has more flash than time.
SERVER = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"

# The packages that bear a byte order also run as big-endian and little-endian mips.
BYTE_ORDER := ./internal/capture ./internal/conntrack ./internal/evidence ./internal/flowtable ./internal/identity ./internal/lru ./internal/netflow ./internal/nlmsg ./internal/packet ./internal/pcapfile ./internal/prefix ./internal/routing ./internal/sender/policy ./internal/sflow ./internal/source ./internal/tracer
# Those of which the smallest build has other parts, and that are tested so, too.
MINI := $(addprefix ./internal/,daemon evidence flowtable routing sender)
# A number of runs, as go test takes the end of a time for a failure now and then.
FUZZTIME ?= 100000x

.PHONY: all build release run test packages lint unit compare pack mips fuzz budget bench cross openwrt image deb install deps board boards shell clean
.NOTPARALLEL:

all: build

build:
	@mkdir -p bin
	CGO_ENABLED=0 go build -ldflags "$(LDFLAGS)" -o bin/overflowd ./cmd/overflowd
	CGO_ENABLED=0 go build -ldflags "$(LDFLAGS)" -o bin/overflow-receiver ./cmd/overflow-receiver

# The program as it is released, at OUT, with TAGS.
release:
	$(RELEASE) -tags "$(TAGS)" -o $(OUT) ./cmd/overflowd

# Signed tracers from a recorded export of softflowd, and their verification.
run: build
	bin/overflowd -f testdata/netflow/softflowd-v5.pcap -r 1/100 --state bin/state \
		--contact-email abuse@example.net --contact-identity "Example Net" > bin/tracers.json
	cat bin/tracers.json
	bin/overflowd verify bin/tracers.json

test: packages lint unit compare pack mips fuzz budget boards

# What Debian packages the tests need; the Vagrantfile has a machine for them.
packages deps:
	@.ci/packages

lint:
	@test -z "$$(gofmt -l board cmd internal)" || { gofmt -l board cmd internal; exit 1; }
	go vet ./...
	go vet -tags mini ./cmd/overflowd ./internal/config $(MINI)
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	GOOS=darwin go vet ./cmd/... ./internal/capture ./internal/config ./internal/conntrack ./internal/identity ./internal/receiver/... ./internal/routing ./internal/sender/... ./internal/source
	shellcheck -x openwrt/overflowd/files/overflowd.init .ci/run .ci/packages .ci/gotest board/kernel board/rc.sh internal/pack/deb/postinst internal/pack/deb/prerm internal/pack/deb/postrm internal/pack/testdata/procd.sh testdata/conntrack/record.sh testdata/netflow/record.sh testdata/sflow/record.sh

unit:
	.ci/gotest -race -timeout 30m ./...
	.ci/gotest -tags mini $(MINI)

# The recordings, read by another program's decoders.
compare:
	cd internal/compare && go vet . && ../../.ci/gotest ./...

# What is packed, and that two builds are the same to the byte. Go would take a result
# for known though a file beside the module, as those in openwrt/, has changed.
pack:
	cd internal/pack && go vet ./... && ../../.ci/gotest -count=1 -timeout 30m ./...

mips:
	GOARCH=mips GOMIPS=softfloat CGO_ENABLED=0 .ci/gotest -short -exec "qemu-mips-static -cpu 24Kc" $(BYTE_ORDER)
	GOARCH=mipsle GOMIPS=softfloat CGO_ENABLED=0 .ci/gotest -short -exec "qemu-mipsel-static -cpu 24Kc" $(BYTE_ORDER)

# Each fuzz target for FUZZTIME.
fuzz:
	@set -e; for p in $$(grep -rl --include='*_test.go' '^func Fuzz' internal | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' $$p/*_test.go | cut -d' ' -f2); do \
			echo "fuzz $$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$p; done; done

# Sizes, imports and allocations against the bars of the design.
budget: cross
	go test -count=1 -run Budget -v ./cmd/overflowd
	go test -count=1 -run 'Allocate|PerPacket|Allocation' ./internal/...

# The program on the processors, kernels and flash of routers, in QEMU: see board/README.md.
# The first time it builds a kernel for each, which takes some minutes. Three tests at a
# time, as each takes one processor and waits now and then.
ALL_BOARDS := malta-be malta-le armv7 arm64 x86-64
BOARDS ?= $(ALL_BOARDS)
boards: packages openwrt
	cd board && go vet ./... && BOARDS="$(BOARDS)" ../.ci/gotest -parallel 100 -timeout 75m .

# All that is tested on one of them: make board BOARD=malta-be. With OPENWRT, the file of
# an initramfs image of OpenWrt for malta or armsr, the packages are installed in that, and
# those tests run that need no flash and no kernel of our own.
board:
	@test -d "board/$(BOARD)" -a -n "$(BOARD)" || { echo "BOARD is one of $(BOARDS)" >&2; exit 1; }
	$(if $(OPENWRT),$(MAKE) openwrt && cd board && OPENWRT="$(abspath $(OPENWRT))" BOARDS=$(BOARD) go test -count=1 -tags openwrt -timeout 60m -run 'TestOpenWrt|TestBoardBoots|TestTracers|TestRecords|TestNothingIsSent' -v .,$(MAKE) boards BOARDS=$(BOARD))

# A prompt in one of them, with the files of the package: make shell BOARD=malta-be
shell: packages openwrt
	@test -d "board/$(BOARD)" -a -n "$(BOARD)" || { echo "BOARD is one of $(ALL_BOARDS)" >&2; exit 1; }
	cd board && go run ./shell $(BOARD)

# Speed beside other programs, as ratios, and instructions on boards.
bench: openwrt
	go test -run '^$$' -bench . ./internal/...
	cd internal/compare && go test -timeout 30m -run '^$$' -bench . .
	cd board && BOARDS="$(BOARDS)" go test -count=1 -timeout 60m -run 'TestInstructions$$' -v .

TARGETS := mips/softfloat mipsle/softfloat arm/5 arm/7 arm64/ amd64/
cross:
	@mkdir -p dist
	@set -e; for t in $(TARGETS); do a=$${t%/*}; v=$${t#*/}; for tags in "" mini; do \
		GOOS=linux GOARCH=$$a GOMIPS=softfloat GOARM=$$(test $$a = arm && echo $$v) \
		$(MAKE) -s release TAGS=$$tags OUT=dist/overflowd$${tags:+-$$tags}-$$a$$(test $$a = arm && echo v$$v || true); done; done
	@ls -l dist

# The packages for OpenWrt routers, in dist/openwrt/ARCHITECTURE, with the indices of
# a feed. Two builds of a commit are the same to the byte. USIGN_KEY, a file of usign -G,
# signs Packages for opkg; APK_KEY, a PEM file of openssl ecparam -name prime256v1
# -genkey, signs the .apk and packages.adb.
ARCHITECTURES := mips_24kc=mips mipsel_24kc=mipsle arm_cortex-a7_neon-vfpv4=arm/7 arm_arm926ej-s=arm/5 aarch64_cortex-a53=arm64 x86_64=amd64
PACKAGE_VERSION = $(shell sed -n 's/^PKG_VERSION:=//p' openwrt/overflowd/Makefile)
DIST = $(CURDIR)/dist
SIGN = $(if $(USIGN_KEY),-usign-key $(abspath $(USIGN_KEY))) $(if $(APK_KEY),-apk-key $(abspath $(APK_KEY)))
EPOCH = $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
openwrt:
	@set -e; for a in $(ARCHITECTURES); do name=$${a%=*}; goarch=$${a#*=}; \
		for tags in "" mini; do program=overflowd$${tags:+-$$tags}; \
			GOOS=linux GOARCH=$${goarch%/*} GOMIPS=softfloat GOARM=$$(test $${goarch%/*} = arm && echo $${goarch#*/}) \
			$(MAKE) -s release VERSION=$(PACKAGE_VERSION) TAGS=$$tags OUT=$(DIST)/programs/$$name/$$program/overflowd; done; \
		rm -rf $(DIST)/openwrt/$$name; \
		(cd internal/pack && go run . -out $(DIST)/openwrt/$$name -arch $$name -binaries $(DIST)/programs/$$name -epoch $(EPOCH) $(SIGN) openwrt); done
	@ls -l $(DIST)/openwrt/*

# A container image for amd64, arm64 and arm, as an OCI archive.
image: openwrt
	cd internal/pack && go run . -out ../../dist/overflowd-image.tar -binaries ../../dist/programs -epoch $(EPOCH) -version $(PACKAGE_VERSION) image

# Packages for Debian, in dist/deb.
DEBIAN := amd64 arm64 arm/7 arm/5
deb: VERSION = $(PACKAGE_VERSION)
deb: openwrt
	@set -e; for a in $(ARCHITECTURES); do name=$${a%=*}; goarch=$${a#*=}; case " $(DEBIAN) " in *" $$goarch "*) \
		GOOS=linux GOARCH=$${goarch%/*} GOARM=$$(test $${goarch%/*} = arm && echo $${goarch#*/}) $(SERVER) -o $(DIST)/programs/$$name/overflow-receiver/overflow-receiver ./cmd/overflow-receiver;; esac; done
	cd internal/pack && go run . -out ../../dist/deb -binaries ../../dist/programs -epoch $(EPOCH) -version $(PACKAGE_VERSION) deb

# For a Linux with systemd. DESTDIR is for those who make packages.
PREFIX ?= /usr
install:
	$(MAKE) -s release OUT=$(DESTDIR)$(PREFIX)/bin/overflowd
	$(SERVER) -o $(DESTDIR)$(PREFIX)/bin/overflow-receiver ./cmd/overflow-receiver
	@set -e; for p in overflowd overflow-receiver; do \
		install -D -m0644 internal/pack/systemd/$$p.service $(DESTDIR)$(PREFIX)/lib/systemd/system/$$p.service; \
		sed -i 's,/usr/bin/overflow,$(PREFIX)/bin/overflow,' $(DESTDIR)$(PREFIX)/lib/systemd/system/$$p.service; \
		test -e $(DESTDIR)/etc/default/$$p || install -D -m0644 internal/pack/systemd/$$p.default $(DESTDIR)/etc/default/$$p; done

clean:
	rm -rf bin dist
