// SPDX-License-Identifier: BSD-3-Clause

package tracer

// A Verdict is what a sender says of a flow's source, in the member "evidence".
// It is a claim, as all that is in a message.
type Verdict struct {
	Spoofed   string // "yes", "no", "unknown"; "" if it says nothing
	Method    string // how it knows
	Point     string // where it looked: "lan", "wan"
	Suspicion []string
}

// maxSuspicion of a verdict are read.
const maxSuspicion = 8

// ReadVerdict returns the verdict of a message that was verified. What is
// malformed is as if it were not there.
func ReadVerdict(message []byte) (v Verdict) {
	root, err := parseObject(message)
	if err != nil {
		return v
	}
	e := root.member("evidence")
	if e == nil {
		return v
	}
	switch s, _ := e.text("spoofed"); s {
	case "yes", "no", "unknown":
		v.Spoofed = s
	}
	v.Method, _ = e.text("method")
	v.Point, _ = e.text("point")
	if list := e.member("suspicion"); list != nil {
		for i := range list.elems {
			if x := &list.elems[i]; x.kind == jsonString && len(v.Suspicion) < maxSuspicion {
				v.Suspicion = append(v.Suspicion, x.str)
			}
		}
	}
	return v
}
