// SPDX-License-Identifier: BSD-3-Clause

// Shell boots a board with a package's files and gives a prompt in it: go run ./shell
// BOARD, or make shell BOARD=malta-be. Ctrl-A x turns it off.
package main

import (
	"fmt"
	"os"

	"github.com/overflowd/overflowd/board/machine"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: shell BOARD")
		os.Exit(2)
	}
	b, err := machine.Open(".", os.Args[1])
	if err == nil {
		err = b.Shell("../dist/openwrt", "overflowd")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shell:", err)
		os.Exit(1)
	}
}
