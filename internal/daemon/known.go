// SPDX-License-Identifier: BSD-3-Clause

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/overflowd/overflowd/internal/config"
	"github.com/overflowd/overflowd/internal/evidence"
	"github.com/overflowd/overflowd/internal/flow"
	"github.com/overflowd/overflowd/internal/prefix"
	"github.com/overflowd/overflowd/internal/routing"
	"github.com/overflowd/overflowd/internal/sender"
	"github.com/overflowd/overflowd/internal/source"
	"github.com/overflowd/overflowd/internal/tracer"
)

// known is what is known of flows beyond their records.
type known struct {
	origins  *evidence.Origins
	exported []evidence.ExporterInterface
	list     list
	wanted   atomic.Pointer[prefix.Set]  // destinations that asked for more tracers
	verdicts [evidence.Answers]uint64    // of selected records
	reasons  [evidence.NumReasons]uint64 // likewise
	said     string                      // why routes cannot be read, as it was said
}

// openEvidence opens what tells more of flows.
func (d *daemon) openEvidence() error {
	c, special := d.config, &prefix.Set{}
	if len(c.Interfaces) > 0 || len(c.Exported) > 0 {
		special = d.policy.Special()
	}
	d.known.exported = c.Exported
	if len(c.Exported) > 0 && !mini {
		d.known.exported = evidence.MakeGuards(c.Exported, special)
	}
	o := evidence.OriginOptions{Interfaces: map[string]evidence.Role{}, Index: routing.Index, Special: special,
		Exporters: d.known.exported, Strict: routing.Strict, LocalSources: routing.LocalSources}
	for _, i := range c.Interfaces {
		if i.Role != source.NoRole {
			o.Interfaces[i.Name] = i.Role
		}
	}
	var conn *routing.Conn
	if len(o.Interfaces) > 0 || c.Conntrack {
		var err error
		if conn, err = routing.Dial(); err != nil {
			d.log.Printf("whether a source is spoofed will not be known: %v", err)
		}
	}
	d.known.origins = evidence.NewOrigins(o, conn)
	d.known.origins.Refresh()
	if c.Suspects == "" {
		return nil
	}
	d.known.list = list{path: c.Suspects, most: c.MaxSuspects}
	if _, err := d.known.list.load(); err != nil {
		return fmt.Errorf("--suspects %s: %w", c.Suspects, withoutPath(err))
	}
	return nil
}

// newDetector returns one for a table of so many flows, or for records if there are
// none; nil if none is wanted.
func (d *daemon) newDetector(flows int, ways bool) *evidence.Detector {
	if !d.config.Suspect {
		return nil
	}
	return evidence.NewDetector(evidence.DetectorOptions{Flows: flows, Limit: d.config.Flood, List: &d.known.list.set, Wanted: &d.known.wanted, Ways: ways})
}

// about completes a hit: it judges the source and names private ends as the Internet
// knows them.
func (d *daemon) about(h *source.Hit) sender.About {
	k := &d.known
	v := k.origins.Judge(&h.Record, h.Exporter)
	src := h.Record.Src
	d.nat.Translate(&h.Record)
	s := h.Suspicion &^ (evidence.Spoofed | evidence.Special)
	switch {
	case v.Spoofed != evidence.Yes:
	case h.Record.Src != src: // what leaves bears our own address, which is not forged
		v.Spoofed, v.Method = evidence.Unknown, ""
	default:
		s |= v.Reason()
	}
	k.verdicts[v.Spoofed]++
	for i := range k.reasons {
		k.reasons[i] += uint64(s >> i & 1)
	}
	return sender.About{Contact: d.contactFor(&h.Record.Key, v.Spoofed),
		Evidence: tracer.Evidence{Spoofed: v.Spoofed.String(), Method: v.Method, Point: v.Point.String(), Suspicion: s.Names()}}
}

// json writes what was found out about the records that were selected.
func (k *known) json(o *object) {
	o.open("spoofed")
	for a, n := range k.verdicts {
		o.uint(evidence.Answer(a).String(), n)
	}
	o.close()
	o.open("suspicion")
	for i, n := range k.reasons {
		o.uint(evidence.ReasonName(i), n)
	}
	o.close()
	if k.list.path != "" {
		o.uint("suspects", uint64(k.list.entries.Load()))
	}
}

// text writes the same for people.
func (k *known) text(line func(label, format string, args ...any)) {
	if k.verdicts[evidence.Yes]+k.verdicts[evidence.No] > 0 {
		line("spoofed", "%s yes, %s no, %s unknown", grouped(k.verdicts[evidence.Yes]), grouped(k.verdicts[evidence.No]), grouped(k.verdicts[evidence.Unknown]))
	}
	suspected := ""
	for i, n := range k.reasons {
		if n > 0 {
			suspected += ", " + grouped(n) + " " + evidence.ReasonName(i)
		}
	}
	if suspected != "" {
		line("suspicion", "%s", suspected[2:])
	}
	if k.list.path != "" {
		note := ""
		if k.list.failed.Load() {
			note = ", of an earlier version: the file cannot be read now"
		}
		line("suspects", "%s in %s%s", many(uint64(k.list.entries.Load()), "prefix"), k.list.path, note)
	}
}

// sayRoutes says why whether sources are spoofed is not known.
func (d *daemon) sayRoutes() {
	why := ""
	if err := d.known.origins.Failure(); err != nil {
		why = err.Error()
	}
	if why != d.known.said && why != "" {
		d.log.Printf("whether a source is spoofed is not known: %s", why)
	}
	d.known.said = why
}

// withoutPath is the error of a file whose name is said anyway.
func withoutPath(err error) error {
	if of, ok := err.(*fs.PathError); ok {
		return of.Err
	}
	return err
}

// list is the owner's list of prefixes.
type list struct {
	path    string
	most    int
	set     atomic.Pointer[prefix.Set]
	entries atomic.Int64
	failed  atomic.Bool // the last time; the list from before stands
	was     fs.FileInfo
}

// lookAtList is how often it is looked whether the file has changed.
const lookAtList = 5 * time.Second

// load reads the list if it has changed since it was last read.
func (l *list) load() (changed bool, err error) {
	file, err := os.Open(l.path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	if l.was != nil && os.SameFile(info, l.was) && info.Size() == l.was.Size() && info.ModTime().Equal(l.was.ModTime()) {
		return false, nil
	}
	set, n, err := prefix.ReadList(file, l.most)
	if errors.Is(err, prefix.ErrMany) {
		err = fmt.Errorf("%w (--max-suspects)", err)
	}
	l.was = info // of one that is not valid too: it is read again when it changes
	if err != nil {
		return false, err
	}
	l.set.Store(set)
	l.entries.Store(int64(n))
	return true, nil
}

// watch reads the list when it changes, until ctx is done. A list that is not valid is
// left alone.
func (l *list) watch(ctx context.Context, logger *log.Logger) {
	ticker := time.NewTicker(lookAtList)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch changed, err := l.load(); {
		case err != nil:
			l.failed.Store(true)
			if err.Error() != said {
				said = err.Error()
				logger.Printf("%s: %v; the list from before stands", l.path, withoutPath(err))
			}
		case changed:
			l.failed.Store(false)
			said = ""
			logger.Printf("%s: %s", l.path, many(uint64(l.entries.Load()), "prefix"))
		}
	}
}

// contactFor returns who answers for a flow: for the smallest part of the network that
// has its source, unless that is forged, or else its destination.
func (d *daemon) contactFor(k *flow.Key, spoofed evidence.Answer) tracer.Contact {
	if mini {
		return d.config.Contact
	}
	if spoofed != evidence.Yes {
		if c := contactOf(d.config.Contacts, k.SrcAddr()); c != nil {
			return *c
		}
	}
	if c := contactOf(d.config.Contacts, k.DstAddr()); c != nil {
		return *c
	}
	return d.config.Contact
}

func contactOf(all []config.ContactFor, a netip.Addr) *tracer.Contact {
	for i := range all {
		if all[i].Prefix.Contains(a) {
			return &all[i].Contact
		}
	}
	return nil
}
