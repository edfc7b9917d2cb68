// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/tracer"
)

// WellKnown is where tracers are posted to (RFC 8615).
const WellKnown = "/.well-known/overflowd"

// maxBody is the largest request: some lines.
const maxBody = 64 << 10

// post takes tracers from HTTP requests: one datagram form, or lines. It answers
// 204 if all were taken, and otherwise what became of the first that was not.
func (s *Server) post(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.URL.Path != WellKnown {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodPost:
	case http.MethodGet, http.MethodHead:
		h.Set("Content-Type", "application/json")
		w.Write(s.document())
		return
	default:
		h.Set("Allow", "GET, HEAD, POST")
		http.Error(w, "Post a tracer here.", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		http.Error(w, "larger than tracers may be", http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		return // there is nobody to answer
	}
	from := netip.Addr{}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		from = a.Addr().Unmap().WithZone("")
	}
	if err := s.take(body, from, time.Now()); err != nil {
		code := status(err)
		if code == http.StatusTooManyRequests {
			h.Set("Retry-After", "60")
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// take submits what is in a body.
func (s *Server) take(body []byte, from netip.Addr, now time.Time) error {
	if tracer.IsSealed(body) {
		_, err := s.receiver.SubmitSealed(body, from, now)
		return err
	}
	if tracer.IsDatagram(body) {
		return s.submit(tracer.ParseDatagram, body, from, now)
	}
	n := 0
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		n++
		if err := s.submit(tracer.ParseLine, line, from, now); err != nil {
			return err
		}
	}
	if n == 0 {
		return receiver.Form
	}
	return nil
}

func (s *Server) submit(parse func([]byte) (tracer.Signed, error), b []byte, from netip.Addr, now time.Time) error {
	signed, err := parse(b)
	if err != nil {
		s.receiver.Refuse(receiver.Form)
		return receiver.Form
	}
	_, err = s.receiver.Submit(signed, from, -1, now)
	return err
}

// status is the HTTP status of a refusal.
func status(err error) int {
	why, _ := err.(receiver.Reason)
	switch why {
	case receiver.NetworkRate, receiver.KeyRate, receiver.NewBudget, receiver.SeenBudget, receiver.KnownBudget, receiver.SealedBudget, receiver.Busy:
		return http.StatusTooManyRequests
	case receiver.NotMine, receiver.NotEnd:
		return http.StatusMisdirectedRequest
	case receiver.Replay:
		return http.StatusAlreadyReported // which is a success: it is here
	case receiver.Sealed:
		return http.StatusUnsupportedMediaType
	}
	return http.StatusBadRequest
}

// document is what a GET of the well-known path is answered with.
func (s *Server) document() []byte {
	d := struct {
		Version int    `json:"overflowd"`
		Seal    string `json:"seal,omitempty"`
	}{Version: 1}
	if key := s.seal.Key(); key != (tracer.SealKey{}) {
		d.Seal = key.String()
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // it has a number and a string
	}
	return append(b, '\n')
}
