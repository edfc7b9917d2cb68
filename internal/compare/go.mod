module github.com/overflowd/overflowd/internal/compare

go 1.26.0

require (
	github.com/netsampler/goflow2/v2 v2.2.6
	github.com/overflowd/overflowd v0.0.0
)

replace github.com/overflowd/overflowd => ../..
