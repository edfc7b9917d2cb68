// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/daemon"
)

// status asks the running program.
func status(args []string, stdout io.Writer) error {
	fs := config.FlagSet("status")
	json := fs.Bool("json", false, "")
	path := fs.String("status", "", "")
	if err := fs.Parse(args); err != nil {
		return usageOrHelp(fmt.Errorf("status: %w", err))
	}
	if fs.NArg() > 0 {
		return usage{fmt.Errorf("status: unexpected argument %q", fs.Arg(0))}
	}
	if *path == "" {
		*path = config.RunningSocket()
	}
	return daemon.Status(*path, *json, stdout)
}
