// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/overflowd/overflowd/internal/config"
)

// statusTimeout is how long a client may take to ask and to read.
const statusTimeout = 2 * time.Second

// The status is asked for with one line, "text" or "json", at a unix socket; the
// answer goes up to the end of the connection.
const (
	askText = "text\n"
	askJSON = "json\n"
)

// openStatus opens the status socket, of mode 0660. It returns nil where there is
// no place for it, or another overflowd has the usual place.
func (d *daemon) openStatus() (*net.UnixListener, error) {
	path := d.config.Status
	named := path != ""
	if !named {
		if path = config.StatusSocket(); path == "" {
			return nil, nil
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			d.log.Printf("no status socket: %v", err)
			return nil, nil
		}
	}
	if conn, err := dial(path); err == nil {
		conn.Close()
		err = fmt.Errorf("another overflowd answers at the status socket %s", path)
		if named {
			return nil, err
		}
		d.log.Print(err)
		return nil, nil
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path) // of one that was killed
	}
	old := syscall.Umask(0o117)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	syscall.Umask(old)
	if err == nil || named {
		return l, err
	}
	d.log.Printf("no status socket: %v", err)
	return nil, nil
}

// serveStatus answers until ctx is done: one client at a time, each for a short
// while only.
func (d *daemon) serveStatus(ctx context.Context, l *net.UnixListener) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(100 * time.Millisecond) // out of file descriptors
			continue
		}
		conn.SetDeadline(time.Now().Add(statusTimeout))
		d.answer(ctx, conn)
		conn.Close()
	}
}

func (d *daemon) answer(ctx context.Context, conn *net.UnixConn) {
	var question [len(askText)]byte
	if _, err := io.ReadFull(conn, question[:]); err != nil {
		return
	}
	answer := make(chan []byte, 1)
	ask := statusRequest{json: string(question[:]) == askJSON, answer: answer}
	if !ask.json && string(question[:]) != askText {
		io.WriteString(conn, "ask for text or json\n")
		return
	}
	timeout := time.NewTimer(statusTimeout)
	defer timeout.Stop()
	select {
	case d.asked <- ask:
	case <-timeout.C: // the output blocks
		return
	case <-ctx.Done():
		return
	}
	select {
	case b := <-answer:
		conn.Write(b)
	case <-ctx.Done():
	}
}

// A statusRequest goes to the cold side. The answer's capacity is 1.
type statusRequest struct {
	json   bool
	answer chan<- []byte
}

// tell answers a request.
func (d *daemon) tell(r statusRequest) {
	if r.json {
		r.answer <- d.status().json()
	} else {
		r.answer <- d.status().text()
	}
}

// dial avoids net.Dial, which would link Go's DNS resolver: 250 kB.
func dial(path string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
}

// Status asks the running program at the socket, and copies what it says to out.
func Status(path string, json bool, out io.Writer) error {
	conn, err := dial(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("no overflowd is running at %s", path)
		}
		return fmt.Errorf("ask for the status: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * statusTimeout))
	question := askText
	if json {
		question = askJSON
	}
	if _, err := io.WriteString(conn, question); err != nil {
		return fmt.Errorf("ask for the status: %w", err)
	}
	var b strings.Builder
	if _, err := io.Copy(&b, conn); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	if b.Len() == 0 {
		return errors.New("overflowd does not answer: it is busy, or about to end")
	}
	_, err = io.WriteString(out, b.String())
	return err
}
