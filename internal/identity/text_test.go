// SPDX-License-Identifier: BSD-3-Clause

package identity

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The secret of RFC 8032, section 7.1, test 1; the check was computed with
// sha256sum.
const exported = `overflowd identity 1
secret 9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60
created 1800000000
check d021e7788ca64874
`

func TestExportIsAsDocumented(t *testing.T) {
	id, err := ParseText([]byte(exported))
	if err != nil {
		t.Fatal(err)
	}
	const public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" // RFC 8032
	if got := id.Public().String(); got != public {
		t.Errorf("public key %s, want %s", got, public)
	}
	if got := id.Created.Unix(); got != 1800000000 {
		t.Errorf("created %d", got)
	}
	if diff := cmp.Diff("before"+exported, string(id.AppendText([]byte("before")))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestExportAndImportGiveTheSameIdentity(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 5, 8, 13, 34, maxSuccession} {
		want := fixed(n)
		text := want.AppendText(nil)
		for name, text := range map[string][]byte{
			"as it is":                  text,
			"with the line ends of DOS": bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
			"between blank lines":       []byte("\n\r\n\n" + string(text) + "\r\n\n"),
			"without the last newline":  bytes.TrimSpace(text),
		} {
			got, err := ParseText(text)
			if err != nil {
				t.Fatalf("%d rotations, %s: %v", n, name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%d rotations, %s: (-want +got)\n%s", n, name, diff)
			}
		}
	}
}

func TestParseTextRefuses(t *testing.T) {
	good := string(fixed(2).AppendText(nil))
	lines := strings.SplitAfter(good, "\n") // head, secret, created, succeeds, succeeds, check
	seal := func(body string) string { return body + "check " + checksum([]byte(body)) + "\n" }
	with := func(line int, text string) string {
		l := append([]string(nil), lines[:5]...)
		l[line-1] = text
		return seal(strings.Join(l, ""))
	}
	replaced := func(line int, old, new string) string {
		text := strings.Replace(lines[line-1], old, new, 1)
		if text == lines[line-1] {
			panic("nothing to replace")
		}
		return with(line, text)
	}
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                             {"", "line 1: it does not begin with"},
		"blank lines":                         {"\n\r\n", "it does not begin with"},
		"a space in front":                    {" " + good, "line 1: it does not begin with"},
		"a byte order mark in front":          {"\ufeff" + good, "line 1: it does not begin with"},
		"an export of a later version":        {with(1, "overflowd identity 2\n"), "line 1: it does not begin with"},
		"a line behind":                       {good + "x\n", "line 7: it does not end"},
		"the head alone":                      {lines[0], "line 1: it does not end"},
		"no secret and no time":               {seal(lines[0]), "a part is missing"},
		"no check":                            {strings.Join(lines[:5], ""), "line 5: it does not end"},
		"half a check":                        {good[:len(good)-5], "line 6: \"check\" does not fit"},
		"a check in upper case":               {seal(strings.Join(lines[:5], ""))[:len(good)-17] + strings.ToUpper(good[len(good)-17:]), "line 6: \"check\" does not fit"},
		"a secret cut short":                  {with(2, "secret 00\n"), "line 2: a secret has 64"},
		"a secret in upper case":              {with(2, "secret "+strings.Repeat("AB", 32)+"\n"), "line 2: a secret has 64"},
		"a secret that is not hexadecimal":    {with(2, "secret "+strings.Repeat("xy", 32)+"\n"), "line 2: a secret has 64"},
		"two spaces":                          {replaced(2, " ", "  "), "line 2: \"secret\" is missing"},
		"a tab":                               {replaced(2, " ", "\t"), "line 2: \"secret\" is missing"},
		"a space behind":                      {replaced(2, "\n", " \n"), "line 2: \"secret\" is missing"},
		"a carriage return inside":            {replaced(2, "\n", "\r\r\n"), "line 2: a secret has 64"},
		"a blank line inside":                 {with(2, "\n"+lines[1]), "line 2: \"secret\" is missing"},
		"lines in another order":              {seal(lines[0] + lines[2] + lines[1]), "line 2: \"secret\" is missing"},
		"no time":                             {seal(lines[0] + lines[1] + lines[3]), "line 3: \"created\" is missing"},
		"a time with a sign":                  {replaced(3, " ", " +"), "line 3: \"+"},
		"a time before 1970":                  {replaced(3, " ", " -"), "line 3: \"-"},
		"a time with a leading zero":          {replaced(3, " ", " 0"), "line 3: \"0"},
		"a time after 9999":                   {with(3, "created 253402300800\n"), "line 3: \"253402300800"},
		"a time beyond 64 bits":               {with(3, "created 99999999999999999999\n"), "line 3: \"999"},
		"a second secret":                     {with(4, lines[1]), "line 4: only \"succeeds\""},
		"a public key in upper case":          {with(5, strings.Replace(lines[4], lines[4][9:73], strings.Repeat("AB", 32), 1)), "line 5: a public key has 64"},
		"a signature of 63 bytes":             {replaced(5, "==\n", "=\n"), "line 5: the signature is not 64 bytes"},
		"a signature with the wrong end bits": {with(5, lines[4][:len(lines[4])-4]+"R==\n"), "line 5: the signature is not 64 bytes"},
		"a time that was not signed":          {replaced(4, " 18", " 17"), "endorsement 1 is not valid"},
		"an endorsement left out":             {seal(strings.Join(lines[:4], "")), "endorsement 1 is not valid"},
		"endorsements in another order":       {seal(lines[0] + lines[1] + lines[2] + lines[4] + lines[3]), "is not valid"},
		"an endorsement of another key":       {with(2, string(fixed(3).AppendText(nil))[21:93]), "endorsement 2 is not valid"},
		"65 endorsements":                     {string(fixed(65).AppendText(nil)), "line 68: there are more than 64"},
		"a file that is too large":            {good + strings.Repeat("\n", MaxText), "larger than the 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := ParseText([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if secret := fmt.Sprintf("%x", fixedKey(2).Seed()); strings.Contains(err.Error(), secret) {
				t.Errorf("error %q shows the secret", err)
			}
			if id != nil {
				t.Error("an identity is returned with the error")
			}
		})
	}
}

func TestEveryChangedByteOfAnExportIsNoticed(t *testing.T) {
	text := fixed(2).AppendText(nil)
	for i := range text[:len(text)-1] { // the last newline may be missing
		for _, mask := range []byte{1, 0x20, 0x80} {
			spoilt := bytes.Clone(text)
			spoilt[i] ^= mask
			if id, err := ParseText(spoilt); err == nil {
				t.Errorf("byte %d of %q: read as %s", i, spoilt, id.Public())
			}
			if _, err := ParseText(text[:i]); err == nil {
				t.Errorf("cut after %d bytes: no error", i)
			}
		}
	}
}

func FuzzParseText(f *testing.F) {
	seeds := 0
	for _, n := range []int{0, 1, 2, maxSuccession} {
		text := fixed(n).AppendText(nil)
		if _, err := ParseText(text); err == nil {
			seeds++
		}
		f.Add(text)
		f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
		f.Add(text[:len(text)/2])
		f.Add(append(text[:len(text)-18:len(text)-18], '\n'))
	}
	if seeds != 4 {
		f.Fatalf("%d of the seeds are exports", seeds)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if bytes.HasSuffix(text, []byte("\ncheck\n")) { // as no fuzzer finds a SHA-256
			body := bytes.TrimSuffix(text, []byte("check\n"))
			text = fmt.Appendf(nil, "%scheck %s\n", body, checksum(body))
		}
		id, err := ParseText(text)
		if err != nil {
			if id != nil {
				t.Error("an identity is returned with the error")
			}
			return
		}
		if err := id.check(); err != nil {
			t.Error(err)
		}
		want := strings.Trim(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n") + "\n"
		if diff := cmp.Diff(want, string(id.AppendText(nil))); diff != "" {
			t.Errorf("it can be written in two ways: (-read +written)\n%s", diff)
		}
	})
}
