// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/overflowd/overflowd/internal/receiver"
)

// metrics writes the counters in the text format of Prometheus, version 0.0.4.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	metric := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP overflow_receiver_%s %s\n# TYPE overflow_receiver_%s %s\n", name, help, name, kind)
	}
	value := func(name, labels string, n uint64) { fmt.Fprintf(&b, "overflow_receiver_%s%s %d\n", name, labels, n) }
	c := &s.receiver.Counters
	metric("build_info", "gauge", "The version of the program.")
	value("build_info", fmt.Sprintf("{version=%q}", s.options.Version), 1)
	metric("offered_total", "counter", "Tracers that were offered, in any form.")
	value("offered_total", "", c.Offered.Load())
	metric("tracers_total", "counter", "Tracers by what became of them.")
	for r := range receiver.Reasons {
		value("tracers_total", fmt.Sprintf("{result=%q}", r.Name()), c.Results[r].Load())
	}
	metric("stale_total", "counter", "Tracers that were taken too late to count.")
	value("stale_total", "", c.Stale.Load())
	metric("signatures_total", "counter", "Signatures that were verified, or not.")
	value("signatures_total", "", c.Verified.Load())
	metric("overrun_total", "counter", "Datagrams that the system dropped, as reading did not keep up.")
	value("overrun_total", "", s.overrun())
	metric("keys_evicted_total", "counter", "Keys that made room for others.")
	value("keys_evicted_total", "", c.Evicted.Load())
	levels := map[string]uint64{}
	s.receiver.Do(func(l *receiver.Ledger) {
		l.All(func(e *receiver.Entry) { levels[e.Level().String()]++ })
	})
	metric("keys", "gauge", "Keys in the ledger, by their standing.")
	for l := receiver.NewKey; l <= receiver.Pinned; l++ {
		value("keys", fmt.Sprintf("{trust=%q}", l), levels[l.String()])
	}
	if a := s.answerer; a != nil {
		metric("receipts_total", "counter", "Tracers that were answered, or not.")
		value("receipts_total", `{result="sent"}`, a.sent.Load())
		value("receipts_total", `{result="rate"}`, a.held.Load())
		value("receipts_total", `{result="failed"}`, a.failed.Load())
	}
	metric("store_failures_total", "counter", "Tracers that could not be stored.")
	value("store_failures_total", "", s.failures.Load())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(b.Bytes())
}
