module github.com/overflowd/overflowd

go 1.26.0

require (
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/google/go-cmp v0.7.0
	github.com/mdlayher/netlink v1.11.2
	go.etcd.io/bbolt v1.5.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/mdlayher/socket v0.6.0 // indirect
	golang.org/x/sync v0.20.0 // indirect
)

require (
	github.com/google/gopacket v1.1.19
	golang.org/x/net v0.53.0
)

require (
	github.com/rogpeppe/go-internal v1.16.0
	golang.org/x/tools v0.36.0 // indirect
)
