// SPDX-License-Identifier: BSD-3-Clause

package usign

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What usign -G and usign -S of OpenWrt wrote. The key signs nothing else.
const (
	private = `untrusted comment: private key
RWRCSwAAAADkyNviHielTo04RWylWombw+nGsWIAUl5A/FKTJUgcfcjCV2R3Fnn/K4pu7ONf3l4qGvqvaioXC7/1BccPP2VBu3P8mPteINXlw9H6HvSWZuR8am2czaVvSccEq3YBosk=
`
	public = `untrusted comment: private key
RWRA/FKTJUgcfbtz/Jj7XiDV5cPR+h70lmbkfGptnM2lb0nHBKt2AaLJ
`
	message   = "Package: sample\nVersion: 1\n\n"
	signature = `untrusted comment: signed by key 40fc529325481c7d
RWRA/FKTJUgcfd2ClDBPPgjzDEPk5rmuO3tDnvhLEeiQQUzD0VQFC59jtMfFuwvNT8rtpv4cYwUYZqAnRhoQAdlyiHoySdeGjAg=
`
)

func TestAKeyThatIsNone(t *testing.T) {
	head, body, _ := strings.Cut(private, "\n")
	for name, file := range map[string]string{
		"nothing":                "",
		"a public key":           public,
		"no base64":              head + "\n*\n",
		"cut":                    head + "\n" + body[:40] + "\n",
		"another seed":           head + "\n" + body[:60] + "A" + body[61:],
		"another algorithm":      head + "\nAA" + body[2:],
		"a passphrase is needed": head + "\n" + body[:6] + "B" + body[7:],
	} {
		if k, err := ParseKey([]byte(file)); err == nil {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func TestTheSameAsUsign(t *testing.T) {
	k, err := ParseKey([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(signature, string(k.Sign([]byte(message)))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	// usign -G was given a comment of its own.
	_, want, _ := strings.Cut(public, "\n")
	if _, got, _ := strings.Cut(string(k.Public()), "\n"); got != want {
		t.Errorf("the public key is %q, want %q", got, want)
	}
}
