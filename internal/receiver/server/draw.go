// SPDX-License-Identifier: BSD-3-Clause

package server

import (
	"fmt"
	"strings"

	"github.com/overflowd/overflowd/internal/receiver/report"
)

// A bar that is drawn, in the units of the chart.
type drawnBar struct {
	X, Width          float64
	FreshY, FreshH    float64
	StandingY, StandH float64
	Title             string
}

// A drawnChart is bars of an hour.
type drawnChart struct {
	Width, Height int
	Most          int
	Bars          []drawnBar
	Ticks         []tick
}

type tick struct {
	X    float64
	Text string
}

// chart lays out a time chart.
func chart(all [bars]bar) drawnChart {
	const width, height, base = 900, 160, 130
	c := drawnChart{Width: width, Height: height, Most: 1}
	for _, b := range all {
		c.Most = max(c.Most, b.Standing+b.Fresh)
	}
	step := float64(width) / bars
	for i, b := range all {
		s, f := float64(base-10)*float64(b.Standing)/float64(c.Most), float64(base-10)*float64(b.Fresh)/float64(c.Most)
		x := float64(i) * step
		c.Bars = append(c.Bars, drawnBar{X: x + 1, Width: step - 2, StandingY: base - s, StandH: s, FreshY: base - s - f, FreshH: f,
			Title: fmt.Sprintf("%s UTC: %d of keys with standing, %d of new keys", b.Time.UTC().Format("15:04"), b.Standing, b.Fresh)})
		if b.Time.Minute()%10 == 0 {
			c.Ticks = append(c.Ticks, tick{x + step/2, b.Time.UTC().Format("15:04")})
		}
	}
	return c
}

// A drawnPath is the carriers of an attack on a line by their hops, the farthest
// on the left and the recipient on the right.
type drawnPath struct {
	Width, Height int
	End           float64
	EndY          float64
	Stops         []stop
	Unknown       int // carriers whose distance nobody knows
	More          int // carriers that are not drawn
}

type stop struct {
	X, Y  float64
	Hops  string
	Name  string
	Key   string
	Class string // standing, new
	Title string
	// Anchor and Shift put the text to the side where there is room.
	Anchor string
	Shift  int
}

// maxStops are drawn at the most.
const maxStops = 12

// pathOf lays out the path of an attack.
func pathOf(a *report.Attack) drawnPath {
	const left, line = 70, 34.0
	p := drawnPath{Width: 900}
	most := 1
	var with []*report.Carrier
	for _, c := range a.Carriers {
		if c.Hops == nil {
			p.Unknown++
			continue
		}
		with = append(with, c)
		most = max(most, *c.Hops)
	}
	if len(with) > maxStops { // the nearest are the ones whose distance is worth most
		p.More = len(with) - maxStops
		with = with[p.More:]
		most = max(1, *with[0].Hops)
	}
	p.End = float64(p.Width) - 60
	for i, c := range with {
		class := "new"
		if c.Trust != "new" {
			class = "standing"
		}
		name := c.Name()
		if name == "-" {
			name = c.Short()
		}
		p.Stops = append(p.Stops, stop{
			X: left + (p.End-left)*(1-float64(*c.Hops)/float64(most)), Y: line * float64(i+1), Hops: hopsText(*c.Hops), Name: report.Clean(name, 40), Key: c.Key, Class: class,
			Title:  strings.TrimSpace(fmt.Sprintf("%s, %s, %s packets", c.Contact.Line(), c.Trusted(), strings.TrimSpace(report.About(c.Packets)))),
			Anchor: "start", Shift: 8,
		})
		if last := &p.Stops[i]; last.X > p.End/2 {
			last.Anchor, last.Shift = "end", -8
		}
	}
	p.Height = int(line*float64(len(with)+1)) + 20
	p.EndY = line * float64(len(with)+1)
	return p
}

func hopsText(n int) string {
	if n == 1 {
		return "1 hop"
	}
	return fmt.Sprintf("%d hops", n)
}
