// SPDX-License-Identifier: BSD-3-Clause

// Overflow-receiver takes tracers and answers who carried a flood, whether it is
// spoofed, and whom to call.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/overflowd/overflowd/internal/config"
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

// usage is an error of the command line.
type usage struct{ error }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := dispatch(args, stdin, stdout, stderr)
	var wrong usage
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		io.WriteString(stdout, usageText)
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "overflow-receiver: %v\nTry overflow-receiver --help.\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "overflow-receiver: %v\n", err)
	return exitError
}

const usageText = `Usage: overflow-receiver --to PREFIX [flags]
       overflow-receiver report --to PREFIX [flags] [FILE...]
       overflow-receiver pin|unpin KEY [NOTE] [--state DIR]
       overflow-receiver keys [--state DIR]
       overflow-receiver key [rotate] [--state DIR]
       overflow-receiver version

Receives tracers: the signed notices that overflowd sends to the two ends of a
flow. It keeps those that are verified, and "report" answers who carried a flood,
whether its source is forged, and whom to call. "key" makes and shows the public key
with which senders may seal tracers, so that nobody else can read them; what is
sealed to one of the three before it is opened, too.

What is received:
      --to PREFIX         an address or a prefix of ours; repeatable
      --listen ADDR       where datagrams come in (0.0.0.0 and [::], port 65535);
                          repeatable
      --http ADDR:PORT    take tracers that are posted to /.well-known/overflowd
      --https ADDR:PORT   likewise, with --cert FILE and --key FILE
      --receipts          answer a tracer by a signed receipt, which is smaller
      --stop PREFIX       ask senders to send no more to these of our addresses, for
                          a day; repeatable
      --more PREFIX       ask senders for more about what goes to these of our addresses,
                          which they may grant for some minutes; repeatable
      --cpu SHARE         of one processor, for signatures, and a quarter of it to open
                          what is sealed (0.5)

What is kept and shown:
      --state DIR         folder (root: /var/lib/overflow-receiver; others:
                          $XDG_STATE_HOME/overflow-receiver)
      --max-size MB       of tracers (256)
      --max-age DAYS      of tracers (30)
      --max-keys N        that are remembered, with standing and as many without
                          (16384)
      --web ADDR:PORT     show them on a page, at /metrics for Prometheus, too. Who
                          can connect can read it: keep it on loopback

report:
      --since SPAN        back from now, as 90m, 24h or 7d (1h)
      --format FORMAT     text, json or html; mail or xarf for each carrier (text)
      --org NAME, --email ADDR   who complains in mails and XARF reports
      FILE                tracers, JSON lines or one raw datagram a file (- is
                          standard input), instead of what is kept

  -h, --help              show this text
      --version           show the version
`

func dispatch(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		switch args[0] {
		case "report":
			return reportCommand(ctx, args[1:], stdin, stdout, stderr)
		case "pin", "unpin":
			return pin(args[0] == "pin", args[1:])
		case "keys":
			return keys(args[1:], stdout)
		case "key":
			return key(args[1:], stdout)
		case "version", "--version", "-version":
			_, err := fmt.Fprintf(stdout, "overflow-receiver %s\n", version)
			return err
		}
	}
	return serve(ctx, args, log.New(stderr, "overflow-receiver: ", 0))
}

// flags returns a flag set with --state.
func flags(name string) (*flag.FlagSet, *string) {
	fs := config.FlagSet(name)
	return fs, fs.String("state", "", "")
}

// parse reads flags, also behind what are no flags, and returns these.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, usage{err}
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}
