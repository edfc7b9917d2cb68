// SPDX-License-Identifier: BSD-3-Clause

// Package control is what a test and the board's init say to each other: requests
// and answers of JSON, a line each, over a port of virtio-serial. Answers come in
// any order; their number tells to what.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Port is the name of the port.
const Port = "overflowd.control"

// A Request asks for one thing: the member that is set.
type Request struct {
	ID    uint64
	Run   *Run   `json:",omitempty"`
	Kill  *Kill  `json:",omitempty"`
	Read  string `json:",omitempty"` // a file, or the names in a folder
	Write *Write `json:",omitempty"`
	Mount *Mount `json:",omitempty"`
	Link  *Link  `json:",omitempty"`
	// Module loads NAME and its parameters.
	Module string `json:",omitempty"`
	// Statfs asks for the free bytes of a filesystem.
	Statfs string `json:",omitempty"`
	// Masquerade puts the address of an interface in place of those of what leaves it.
	Masquerade string `json:",omitempty"`
	// UBI attaches a flash device, by its number, and makes the volume NAME in it.
	UBI *UBI `json:",omitempty"`
	// Clock sets the time, seconds since 1970.
	Clock int64 `json:",omitempty"`
	Halt  bool  `json:",omitempty"`
}

// A Run is a program.
type Run struct {
	Args []string
	Env  []string `json:",omitempty"`
	In   []byte   `json:",omitempty"`
	Root string   `json:",omitempty"` // changed to before
	// Start only starts it; what it says goes to files in /run: its process
	// number and .out or .err.
	Start bool `json:",omitempty"`
}

// Kill signals a process that was started and, if it ends by that, waits for it. With
// signal 0 the error tells that it has ended.
type Kill struct {
	Pid, Signal int
	Wait        bool
}

// Write writes a file, whose folder it makes.
type Write struct {
	Path string
	Data []byte
	Mode uint32
	Add  bool // at its end
	// Times is how often, once if it is 0.
	Times int `json:",omitempty"`
}

// Mount is mount(2); with Type "" it is umount(2). The folders that an overlay writes to
// are made.
type Mount struct{ Source, Target, Type, Options string }

// Root is where the root of the router is in the guest.
const Root = "/mnt"

// RootMounts make it of the device with the squashfs and the flash to lay over it.
func RootMounts(rom, data string) []Mount {
	mounts := []Mount{
		{rom, "/rom", "squashfs", ""},
		{data, "/overlay", "jffs2", ""},
		{"overlay", Root, "overlay", "lowerdir=/rom,upperdir=/overlay/upper,workdir=/overlay/work"},
	}
	for _, d := range []string{"/dev", "/proc", "/sys", "/run", "/tmp"} {
		mounts = append(mounts, Mount{d, Root + d, "bind", ""})
	}
	return mounts
}

// Link sets an interface up.
type Link struct {
	Name      string
	Addresses []string `json:",omitempty"` // prefixes
	Gateways  []string `json:",omitempty"`
	Dummy     bool     `json:",omitempty"` // it is to be made
	Neighbour string   `json:",omitempty"` // ADDRESS=MAC, permanent
}

// UBI is a volume on a flash device.
type UBI struct {
	Device int
	Volume string
	Size   int64
}

// An Answer is to one request.
type Answer struct {
	ID    uint64
	Error string `json:",omitempty"`
	Out   []byte `json:",omitempty"` // of a program, or of a file
	Err   []byte `json:",omitempty"`
	Code  int    `json:",omitempty"` // the exit code, or 128 and the signal
	Pid   int    `json:",omitempty"`
	Bytes int64  `json:",omitempty"`
	// CPU are the seconds that a program computed, itself and in the kernel.
	CPU float64 `json:",omitempty"`
}

// A Client asks. It is safe for concurrent use.
type Client struct {
	mu      sync.Mutex
	out     *json.Encoder
	last    uint64
	waiting map[uint64]chan *Answer
	ended   error
}

// NewClient asks over a connection, which the caller closes.
func NewClient(c io.ReadWriter) *Client {
	l := &Client{out: json.NewEncoder(c), waiting: map[uint64]chan *Answer{}}
	go func() {
		in := json.NewDecoder(c)
		for {
			a := new(Answer)
			err := in.Decode(a)
			l.mu.Lock()
			if err != nil {
				l.ended = fmt.Errorf("the guest is gone: %w", err)
				for _, w := range l.waiting {
					close(w)
				}
				l.mu.Unlock()
				return
			}
			if w := l.waiting[a.ID]; w != nil {
				delete(l.waiting, a.ID)
				w <- a
			}
			l.mu.Unlock()
		}
	}()
	return l
}

// Ask asks and waits for the answer. The error is the guest's, too.
func (l *Client) Ask(r Request) (*Answer, error) {
	w := make(chan *Answer, 1)
	l.mu.Lock()
	if l.ended != nil {
		defer l.mu.Unlock()
		return nil, l.ended
	}
	l.last++
	r.ID = l.last
	l.waiting[r.ID] = w
	err := l.out.Encode(r)
	l.mu.Unlock()
	if err != nil {
		return nil, err
	}
	a := <-w
	if a == nil {
		return nil, l.ended
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
