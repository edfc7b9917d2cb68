// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/overflowd/overflowd/internal/config"
)

const (
	// statusTimeout is how long a client may take to read, and a client of ours
	// waits.
	statusTimeout = 2 * time.Second
	// askTimeout is how long a client may take to ask: it keeps the others waiting.
	askTimeout = 200 * time.Millisecond
)

// The status is asked for with one line, "text" or "json", at a unix socket, and
// "hist" asks for what happened in the last day; the answer goes up to the end of
// the connection.
const (
	askText    = "text\n"
	askJSON    = "json\n"
	askHistory = "hist\n"
)

// openStatus opens the status socket, of mode 0660. It returns nil where there is
// no place for it, or another overflowd has the usual place.
func (d *daemon) openStatus() (*listener, error) {
	if d.config.Status != "" {
		l, err := listen(d.config.Status)
		if err != nil {
			return nil, fmt.Errorf("--status %s: %w", d.config.Status, err)
		}
		return l, nil
	}
	path := config.StatusSocket()
	if path == "" {
		d.log.Print("no status socket, as XDG_RUNTIME_DIR is not set: --status SOCKET makes one")
		return nil, nil
	}
	dir := filepath.Dir(path)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o755) // whatever the umask: the group may ask
	}
	var l *listener
	if err == nil {
		l, err = listen(path)
	}
	if err != nil {
		d.log.Printf("no status socket at %s: %v", path, err)
		return nil, nil
	}
	return l, nil
}

// listen makes the socket, in the place of one that nobody listens at.
func listen(path string) (*listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		conn, err := dial(path)
		if err == nil {
			conn.Close()
			return nil, errors.New("another overflowd answers there")
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			os.Remove(path) // of one that was killed
		}
	}
	old := syscall.Umask(0o117)
	defer syscall.Umask(old)
	file, err := socket(path, func(fd int, at syscall.Sockaddr) error {
		if err := syscall.Bind(fd, at); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
		return syscall.Listen(fd, 16)
	})
	if err != nil {
		return nil, err
	}
	return &listener{file}, nil
}

// A listener accepts connections at a unix socket. It is not one of package net, which
// would read how long the queue may be into 64 kB of memory.
type listener struct{ file *os.File }

func (l *listener) accept() (*os.File, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	err = raw.Read(func(at uintptr) bool {
		for fd, _, failed = syscall.Accept(int(at)); failed == syscall.EINTR; {
			fd, _, failed = syscall.Accept(int(at))
		}
		return failed != syscall.EAGAIN
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return pollable(fd, l.file.Name())
}

// close removes the socket and ends accept.
func (l *listener) close() {
	os.Remove(l.file.Name())
	l.file.Close()
}

// socket makes a unix socket and prepares it: to bind it to the path, or connect it.
func socket(path string, prepare func(fd int, at syscall.Sockaddr) error) (*os.File, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	if err := prepare(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return pollable(fd, path)
}

// pollable returns a file of a socket, which has deadlines and can be closed while
// another goroutine reads it.
func pollable(fd int, name string) (*os.File, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// serveStatus answers until ctx is done: one client at a time, each for a short
// while only.
func (d *daemon) serveStatus(ctx context.Context, l *listener) {
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	for {
		conn, err := l.accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
				return
			}
			time.Sleep(100 * time.Millisecond) // out of file descriptors
			continue
		}
		d.answer(ctx, conn)
		conn.Close()
	}
}

func (d *daemon) answer(ctx context.Context, conn *os.File) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(askTimeout))
	var question [len(askText)]byte
	if _, err := io.ReadFull(conn, question[:]); err != nil {
		return
	}
	conn.SetDeadline(time.Now().Add(statusTimeout))
	answer := make(chan []byte, 1)
	ask := statusRequest{answer: answer}
	switch string(question[:]) {
	case askText:
		ask.what = func() []byte { return d.status().text() }
	case askJSON:
		ask.what = func() []byte { return d.status().json() }
	case askHistory:
		ask.what = d.historyJSON
	default:
		io.WriteString(conn, "ask for text, json or hist\n")
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

// A statusRequest goes to the cold side, which calls what and answers with what it
// returns. The answer's capacity is 1.
type statusRequest struct {
	what   func() []byte
	answer chan<- []byte
}

func dial(path string) (*os.File, error) { return socket(path, syscall.Connect) }

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
