// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/receiver"
	"github.com/overflowd/overflowd/internal/receiver/report"
	"github.com/overflowd/overflowd/internal/tracer"
)

//go:embed assets
var assets embed.FS

// pages are escaped by html/template for where they put a text: all of the texts
// were written by strangers.
var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"stamp": report.Stamp, "about": report.About, "chart": chart, "path": pathOf, "add": func(a, b int) int { return a + b },
}).ParseFS(assets, "assets/*.html"))

// policyOfContent lets nothing be loaded or run but what is in the program, and
// nothing be asked elsewhere.
const policyOfContent = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page is what shows the tracers. It has no part that changes anything.
func (s *Server) page() http.Handler {
	static, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // of a folder that is embedded
	}
	files := http.FileServerFS(static)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.overview)
	mux.HandleFunc("GET /overview", s.fragment)
	mux.HandleFunc("GET /live.json", s.live)
	mux.HandleFunc("GET /report.json", s.reportJSON)
	mux.HandleFunc("GET /key/{key}", s.key)
	mux.HandleFunc("GET /mail/{key}", s.complaint)
	mux.HandleFunc("GET /xarf/{key}", s.complaint)
	mux.HandleFunc("GET /metrics", s.metrics)
	for _, name := range []string{"page.js", "page.css", "icon.svg"} {
		mux.Handle("GET /"+name, files)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyOfContent)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !addressed(r.Host) {
			http.Error(w, "Ask by address, or as localhost.", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// addressed tells whether a host is an address or localhost. By another name, which
// its owner lets point to us, a page of his could read ours.
func addressed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

// span is what the page shows, and how long a bar of its chart is.
const (
	span    = time.Hour
	bars    = 60
	maxLive = 50
)

// A view is what the templates get.
type view struct {
	Version  string
	To       []string
	Since    time.Time // the server's start
	Now      time.Time
	Report   *report.Report
	Bars     [bars]bar
	Live     []liveRow
	Whole    bool
	Offered  uint64
	Taken    uint64
	Refused  []refused
	Keys     int
	Standing int
}

type refused struct {
	Text string
	N    uint64
}

// A bar is of one minute.
type bar struct {
	Time            time.Time
	Standing, Fresh int
}

// A liveRow is a tracer in the list.
type liveRow struct {
	Number  uint64 `json:"number"`
	Time    string `json:"time"`
	Hops    string `json:"hops"`
	From    string `json:"from"`
	Name    string `json:"name"`
	Key     string `json:"key"`
	Trust   string `json:"trust"`
	Flow    string `json:"flow"`
	Packets string `json:"packets"`
	Spoofed string `json:"spoofed"`
	Stale   bool   `json:"stale"`
}

func rowOf(x item) liveRow {
	hops, from := "?", "-"
	if x.Hops >= 0 {
		hops = strconv.Itoa(x.Hops)
	}
	if x.From.IsValid() {
		from = x.From.String()
	}
	f := &x.Flow
	text := fmt.Sprintf("%s → %s", f.SrcAddr(), f.DstAddr())
	if f.Known&flow.HasPorts != 0 {
		text = fmt.Sprintf("%s → %s", netip.AddrPortFrom(f.SrcAddr(), f.SrcPort), netip.AddrPortFrom(f.DstAddr(), f.DstPort))
	}
	packets := "-"
	if x.Rate > 0 {
		packets = strings.TrimSpace(report.About(float64(x.Selected) / x.Rate))
	}
	return liveRow{x.number, x.Arrived.UTC().Format("15:04:05"), hops, from, cmp.Or(report.Clean(x.Contact.Identity, 40), "-"), x.Signed.Key.String(), x.Level.String(),
		text + " " + report.Protocol(f.Protocol), packets, cmp.Or(x.Spoofed, "-"), x.Stale}
}

// look collects what is shown.
func (s *Server) look() *view {
	now := time.Now()
	v := &view{Version: s.options.Version, Since: s.started, Now: now}
	for _, p := range s.options.To {
		v.To = append(v.To, text(p))
	}
	start := now.Truncate(time.Minute).Add(time.Minute - span)
	for i := range v.Bars {
		v.Bars[i].Time = start.Add(time.Duration(i) * time.Minute)
	}
	items, whole := s.recent.since(start)
	v.Whole = whole
	b := report.NewBuilder(Mine(s.options.To), v.To, start, now.Add(time.Second))
	b.Level = s.level()
	for _, x := range items {
		b.Add(x.Received)
		if i := int(x.Arrived.Sub(start) / time.Minute); i >= 0 && i < bars && !x.Stale {
			if x.Level == receiver.NewKey {
				v.Bars[i].Fresh++
			} else {
				v.Bars[i].Standing++
			}
		}
	}
	v.Report = b.Report()
	v.Live = rows(items, 0)
	c := &s.receiver.Counters
	v.Offered, v.Taken = c.Offered.Load(), c.Results[receiver.Taken].Load()
	for r := receiver.Taken + 1; r < receiver.Reasons; r++ {
		if n := c.Results[r].Load(); n > 0 {
			v.Refused = append(v.Refused, refused{r.String(), n})
		}
	}
	s.receiver.Do(func(l *receiver.Ledger) {
		standing, fresh := l.Len()
		v.Standing, v.Keys = standing, standing+fresh
	})
	return v
}

// level returns what asks the ledger once, for all keys.
func (s *Server) level() func(tracer.PublicKey) (receiver.Level, bool) {
	levels := map[tracer.PublicKey]receiver.Level{}
	s.receiver.Do(func(l *receiver.Ledger) { l.All(func(e *receiver.Entry) { levels[e.Key] = e.Level() }) })
	return func(k tracer.PublicKey) (receiver.Level, bool) {
		l, ok := levels[k]
		return l, ok
	}
}

// text writes a prefix, or the address if it is of one.
func text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// rows returns the last ones after a number, the newest first.
func rows(items []item, after uint64) []liveRow {
	slices.SortFunc(items, func(a, b item) int { return cmp.Compare(b.number, a.number) })
	list := []liveRow{}
	for _, x := range items {
		if x.number <= after || len(list) == maxLive {
			break
		}
		list = append(list, rowOf(x))
	}
	return list
}

// render writes a page, as a whole or, if it fails, not at all.
func (s *Server) render(w http.ResponseWriter, name string, data any) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		s.options.Log.Printf("make the page %s: %v", name, err)
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}

func (s *Server) overview(w http.ResponseWriter, _ *http.Request) { s.render(w, "page.html", s.look()) }
func (s *Server) fragment(w http.ResponseWriter, _ *http.Request) { s.render(w, "overview", s.look()) }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // an error: nobody is there any more
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseUint(r.FormValue("after"), 10, 64)
	items, _ := s.recent.since(time.Now().Add(-span))
	writeJSON(w, rows(items, after))
}

func (s *Server) reportJSON(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.look().Report) }

// A keyView is a key's history.
type keyView struct {
	Version     string
	Key         string
	Entry       *receiver.Entry // nil: it is not in the ledger
	Level       string
	Contact     string
	Name        string
	First, Last time.Time
	Predecessor string
	Successor   string
	Bars        [bars]bar
	Live        []liveRow
}

func (s *Server) key(w http.ResponseWriter, r *http.Request) {
	k, err := tracer.ParseKey(r.PathValue("key"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	v := keyView{Version: s.options.Version, Key: k.String()}
	s.receiver.Do(func(l *receiver.Ledger) {
		if e := l.Find(k); e != nil {
			c := *e
			c.Paths = slices.Clone(e.Paths)
			v.Entry = &c
		}
	})
	if e := v.Entry; e != nil {
		v.Level, v.First, v.Last = e.Level().String(), time.UnixMilli(e.First), time.UnixMilli(e.Last)
		v.Contact, v.Name = report.ContactOf(&e.Contact).Line(), report.Clean(e.Contact.Identity, 100)
		none := tracer.PublicKey{}
		if e.Predecessor != none {
			v.Predecessor = e.Predecessor.String()
		}
		if e.Successor != none {
			v.Successor = e.Successor.String()
		}
	}
	start := time.Now().Truncate(time.Minute).Add(time.Minute - span)
	for i := range v.Bars {
		v.Bars[i].Time = start.Add(time.Duration(i) * time.Minute)
	}
	items, _ := s.recent.since(start)
	items = slices.DeleteFunc(items, func(x item) bool { return x.Signed.Key != k })
	for _, x := range items {
		if i := int(x.Arrived.Sub(start) / time.Minute); i >= 0 && i < bars {
			v.Bars[i].Standing++
		}
	}
	v.Live = rows(items, 0)
	if v.Entry == nil && len(v.Live) == 0 {
		http.NotFound(w, r)
		return
	}
	s.render(w, "key.html", v)
}

// complaint returns the mail or the XARF report for a carrier of an attack, which
// is named by its place in the report: kind and number.
func (s *Server) complaint(w http.ResponseWriter, r *http.Request) {
	rep := s.look().Report
	list := rep.Attacks
	if r.FormValue("kind") == "name" {
		list = rep.InOurName
	}
	for _, a := range list {
		if a.Target() != r.FormValue("target") {
			continue
		}
		for _, c := range a.Carriers {
			if c.Key != r.PathValue("key") {
				continue
			}
			if strings.HasPrefix(r.URL.Path, "/mail/") {
				w.Header().Set("Content-Type", "text/plain; charset=utf-8")
				fmt.Fprint(w, a.MailText(c))
				return
			}
			by := report.Complainant{Org: s.options.Org, Email: s.options.Email}
			if x := a.XARF(c, by); x != nil && by.Email != "" {
				w.Header().Set("Content-Type", "application/json")
				w.Write(x)
				return
			}
			http.Error(w, "There is no such report: it needs --email, and a flow with ports.", http.StatusNotFound)
			return
		}
	}
	http.NotFound(w, r)
}

// HTML returns a report as a page that needs no other file.
func HTML(r *report.Report, version string) ([]byte, error) {
	css, err := assets.ReadFile("assets/page.css")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = pages.ExecuteTemplate(&b, "report.html", struct {
		*report.Report
		CSS     template.CSS
		Version string
	}{r, template.CSS(css), version})
	return b.Bytes(), err
}
