// SPDX-License-Identifier: BSD-3-Clause

// Overflowd watches flows and sends, for about one packet in a million, a signed
// tracer to the two ends of its flow.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/daemon"
)

// version is set by the linker.
var version = "devel"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// errUsage marks an error of the command line.
var errUsage = errors.New("usage")

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := dispatch(args, stdin, stdout, stderr)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, config.ErrHelp):
		io.WriteString(stdout, config.Usage)
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "overflowd: %v\nTry overflowd --help.\n", errors.Unwrap(err))
		return exitUsage
	}
	fmt.Fprintf(stderr, "overflowd: %v\n", err)
	return exitError
}

// usage is an error of the command line.
type usage struct{ error }

func (u usage) Unwrap() error        { return u.error }
func (u usage) Is(target error) bool { return target == errUsage }

func dispatch(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "verify":
			return verify(args[1:], stdin, stdout)
		case "key":
			return key(args[1:], stdin, stdout)
		case "status":
			return status(args[1:], stdout)
		case "version", "--version", "-version":
			_, err := fmt.Fprintf(stdout, "overflowd %s\n", version)
			return err
		case "check":
			return check(args[1:])
		}
	}
	c, err := config.Parse(args)
	if err != nil {
		return usage{err}
	}
	c.Version = version
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return daemon.Run(ctx, c, stdout, log.New(stderr, "overflowd: ", 0))
}

// check tells in one line what is wrong with the arguments, for what makes them of
// other settings, as an init script.
func check(args []string) error {
	c, err := config.Parse(args)
	if err == nil {
		err = daemon.Become(c.User)
	}
	if err == nil {
		c, err = config.Parse(args) // which reads a file: as the user who will
	}
	if err != nil {
		return err
	}
	return daemon.Check(c)
}
