module github.com/overflowd/overflowd/internal/pack

go 1.26.0
