// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"bufio"
	"crypto/rand"
	"io"
	"time"

	"github.com/overflowd/overflowd/internal/identity"
	"github.com/overflowd/overflowd/internal/tracer"
)

// signer completes and signs tracers. It makes the key when the first tracer
// needs it, and notices when the key was rotated.
type signer struct {
	store   *identity.Store
	id      *identity.Identity
	stamp   identity.Stamp
	seq     uint64
	message []byte
	most    int // bytes of a message
}

func newSigner(store *identity.Store) *signer { return &signer{store: store, most: tracer.MaxMessage} }

// Sign implements sender.Signer. The message of the result is valid until the
// next call.
func (s *signer) Sign(t *tracer.Tracer) (tracer.Signed, error) {
	if stamp := s.store.Stamp(); s.id == nil || stamp != s.stamp {
		id, err := s.store.LoadOrCreate()
		if err != nil {
			return tracer.Signed{}, err
		}
		// The stamp from before: a rotation in between is noticed next time.
		s.id, s.stamp = id, stamp
	}
	s.seq++
	t.Time = time.Now().UnixMilli()
	t.Succeeds = s.id.Endorsement()
	t.Seq = s.seq
	rand.Read(t.Nonce[:])
	s.message = t.AppendMessage(s.message[:0])
	// The contact has the room that the longest of flows leaves, the evidence what is
	// left: of a usual flow 300 bytes.
	for len(s.message) > s.most && t.Shorten() {
		s.message = t.AppendMessage(s.message[:0])
	}
	return tracer.Sign(s.id.Private, s.message), nil
}

// publicKey returns the key, or identity.ErrNone if it was not made yet.
func (s *signer) publicKey() (key tracer.PublicKey, err error) {
	id := s.id
	if id == nil {
		if id, err = s.store.Load(); err != nil {
			return key, err
		}
	}
	return id.Public(), nil
}

// printer writes tracers as lines.
type printer struct {
	w     *bufio.Writer
	buf   []byte
	lines uint64
}

func newPrinter(w io.Writer) *printer {
	return &printer{w: bufio.NewWriterSize(w, 16<<10)}
}

func (p *printer) print(s *tracer.Signed) error {
	p.buf = append(s.AppendLine(p.buf[:0]), '\n')
	_, err := p.w.Write(p.buf)
	if err == nil {
		p.lines++
	}
	return err
}

func (p *printer) flush() error { return p.w.Flush() }
