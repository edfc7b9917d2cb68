// SPDX-License-Identifier: BSD-3-Clause

// Sh is the shell of make shell: that of mvdan.cc/sh, with the commands of u-root in it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"mvdan.cc/sh/moreinterp/coreutils"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const prompt = "router# "

func main() {
	r, err := interp.New(interp.Interactive(true), interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.ExecHandlers(coreutils.ExecHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(prompt)
	for {
		err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Interactive(os.Stdin, func(lines []*syntax.Stmt) bool {
			for _, s := range lines {
				err := r.Run(context.Background(), s)
				if code := interp.ExitStatus(0); err != nil && !errors.As(err, &code) {
					fmt.Fprintln(os.Stderr, err)
				}
				if r.Exited() {
					return false
				}
			}
			fmt.Print(prompt)
			return true
		})
		if err == nil || r.Exited() {
			return
		}
		fmt.Fprintf(os.Stderr, "%v\n%s", err, prompt)
	}
}
