// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	service = "../../openwrt/overflowd/files/"
	luci    = "../../openwrt/luci-app-overflowd/"
	views   = luci + "htdocs/luci-static/resources/view/overflowd/"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parse reads a JSON file.
func parse(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, name)), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestJSON: procd, rpcd and LuCI pass over a file that does not parse without a word.
func TestJSON(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../../openwrt", func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".json") {
			n++
			var any map[string]any
			parse(t, name, &any)
		}
		return err
	})
	if err != nil || n < 4 {
		t.Errorf("%d files, %v", n, err)
	}
}

// TestWhatTheMenuAndThePermissionsName: the views, the methods and the UCI package are
// there, and no method is there that nobody may call.
func TestWhatTheMenuAndThePermissionsName(t *testing.T) {
	var acl map[string]struct {
		Read, Write struct {
			Ubus map[string][]string
			UCI  []string
		}
	}
	parse(t, luci+"root/usr/share/rpcd/acl.d/luci-app-overflowd.json", &acl)
	var menu map[string]struct {
		Action  struct{ Type, Path string }
		Depends struct {
			ACL []string
			UCI map[string]any
		}
	}
	parse(t, luci+"root/usr/share/luci/menu.d/luci-app-overflowd.json", &menu)
	if len(menu) < 3 {
		t.Errorf("the menu has %d nodes", len(menu))
	}
	for where, node := range menu {
		if node.Action.Type == "view" {
			read(t, luci+"htdocs/luci-static/resources/view/"+node.Action.Path+".js")
		}
		for _, group := range node.Depends.ACL {
			if _, ok := acl[group]; !ok {
				t.Errorf("%s needs the group %s that no file of ours describes", where, group)
			}
		}
	}
	plugin := read(t, luci+"root/usr/share/rpcd/ucode/overflowd.uc")
	var methods []string
	for _, m := range regexp.MustCompile(`(?m)^\t\t(\w+): \{ call:`).FindAllStringSubmatch(plugin, -1) {
		methods = append(methods, m[1])
	}
	sort.Strings(methods)
	group := acl["luci-app-overflowd"]
	if diff := cmp.Diff(map[string][]string{"luci.overflowd": methods}, group.Read.Ubus); diff != "" || len(methods) == 0 {
		t.Errorf("methods that may be called: (-plug-in +permissions)\n%s", diff)
	}
	if got := append(group.Read.UCI, group.Write.UCI...); !slices.Equal(got, []string{"overflowd", "overflowd"}) {
		t.Errorf("UCI packages %q", got)
	}
	for _, name := range []string{"status.js", "settings.js"} {
		for _, m := range regexp.MustCompile(`object: '([^']*)',\s*method: '([^']*)'`).FindAllStringSubmatch(read(t, views+name), -1) {
			if !slices.Contains(group.Read.Ubus[m[1]], m[2]) {
				t.Errorf("%s calls %s of %s, which nobody may", name, m[2], m[1])
			}
		}
	}
}

// options are the names in each type of section.
type options map[string][]string

func (o options) add(section, option string) {
	if !slices.Contains(o[section], option) {
		o[section] = append(o[section], option)
		sort.Strings(o[section])
	}
}

// TestOptions: what the shipped configuration explains, what the init script takes and
// what the settings page edits are the same.
func TestOptions(t *testing.T) {
	shipped, validated, edited := options{}, options{}, options{}

	section := ""
	for _, line := range strings.Split(read(t, service+"overflowd.config"), "\n") {
		if m := regexp.MustCompile(`^config (\w+) `).FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		if m := regexp.MustCompile(`^\t#?(?:option|list) (\w+) '`).FindStringSubmatch(line); m != nil {
			shipped.add(section, m[1])
		}
	}

	script := read(t, service+"overflowd.init")
	for _, m := range regexp.MustCompile(`(?s)uci_load_validate overflowd (\w+) "\$1" "\$2"(.*?)\n\}`).FindAllStringSubmatch(script, -1) {
		for _, o := range regexp.MustCompile(`'(\w+):`).FindAllStringSubmatch(m[2], -1) {
			validated.add(m[1], o[1])
			if !strings.Contains(script, "$"+o[1]) && !strings.Contains(script, "${"+o[1]) {
				t.Errorf("the init script takes %s of %s, and makes nothing of it", o[1], m[1])
			}
		}
	}

	page := read(t, views+"settings.js")
	for _, function := range regexp.MustCompile(`(?ms)^\t\w+: function\(m\) \{\n(.*?)^\t\},?$`).FindAllStringSubmatch(page, -1) {
		typed := regexp.MustCompile(`m\.section\(form\.(?:NamedSection, 'general', |NamedSection, 'contact', |GridSection, )'(\w+)'`).FindStringSubmatch(function[1])
		if typed == nil {
			t.Errorf("no section in:\n%.200s", function[1])
			continue
		}
		for _, o := range regexp.MustCompile(`s\.(?:taboption\('\w+', |option\()[\w.]+, '(\w+)'`).FindAllStringSubmatch(function[1], -1) {
			edited.add(typed[1], o[1])
		}
	}

	if diff := cmp.Diff(shipped, validated); diff != "" {
		t.Errorf("(-overflowd.config +overflowd.init)\n%s", diff)
	}
	if diff := cmp.Diff(shipped, edited); diff != "" {
		t.Errorf("(-overflowd.config +settings.js)\n%s", diff)
	}
	if len(shipped) != 4 {
		t.Errorf("the configuration has sections of %d types", len(shipped))
	}
}

// TestTemplate: translators find every text of the views and of the menu, and no other.
// LuCI's build/i18n-scan.pl makes it:
//
//	cd openwrt && i18n-scan.pl luci-app-overflowd > luci-app-overflowd/po/templates/overflowd.pot
func TestTemplate(t *testing.T) {
	texts := map[string]bool{}
	quoted := `'((?:[^'\\]|\\.)*)'`
	unescape := strings.NewReplacer(`\'`, `'`, `"`, `\"`)
	for _, name := range []string{"status.js", "settings.js"} {
		page := read(t, views+name)
		calls := len(regexp.MustCompile(`\b(_|N_)\(`).FindAllString(page, -1))
		for _, m := range regexp.MustCompile(`\b_\(`+quoted+`\)`).FindAllStringSubmatch(page, -1) {
			texts[unescape.Replace(m[1])] = true
			calls--
		}
		for _, m := range regexp.MustCompile(`\bN_\(.*?, `+quoted+`, `+quoted+`\)`).FindAllStringSubmatch(page, -1) {
			texts[unescape.Replace(m[1])], texts[unescape.Replace(m[2])] = true, true
			calls--
		}
		if calls != 0 {
			t.Errorf("%s translates %d texts that are no string in single quotes", name, calls)
		}
	}
	for _, m := range regexp.MustCompile(`"(?:title|description)": "(.*)"`).FindAllStringSubmatch(
		read(t, luci+"root/usr/share/luci/menu.d/luci-app-overflowd.json")+read(t, luci+"root/usr/share/rpcd/acl.d/luci-app-overflowd.json"), -1) {
		texts[m[1]] = true
	}
	template := map[string]bool{}
	joined := strings.ReplaceAll(read(t, luci+"po/templates/overflowd.pot"), "\"\n\"", "") // a text may take several lines
	for _, m := range regexp.MustCompile(`(?m)^msgid(?:_plural)? "(.+)"$`).FindAllStringSubmatch(joined, -1) {
		template[m[1]] = true
	}
	if diff := cmp.Diff(texts, template); diff != "" || len(texts) < 100 {
		t.Errorf("%d texts (-views +template)\n%s", len(texts), diff)
	}
}

// TestTextStaysText: what others tell reaches the page. LuCI makes HTML of a string
// that is the whole content of a node, and text of those in a list.
func TestTextStaysText(t *testing.T) {
	for _, name := range []string{"status.js", "settings.js"} {
		page := read(t, views+name)
		for _, m := range regexp.MustCompile(`(?:inner|outer)HTML\s*\+?=[^=].*|insertAdjacentHTML.*|document\.write.*|\bE\('<.*|dom\.(?:content|append)\([^,]+, ['_].*`).FindAllString(page, -1) {
			t.Errorf("%s makes HTML of text: %s", name, m)
		}
		n := 0
		for _, m := range regexp.MustCompile(`\bE\('\w+', (?:\{[^}]*\}, )?(.*)`).FindAllStringSubmatch(page, -1) {
			n++
			lists := []string{"[", "heads.map(", "row.map(", "content)"}
			if !slices.ContainsFunc(lists, func(list string) bool { return strings.HasPrefix(m[1], list) }) {
				t.Errorf("%s: what is in a node is no list: %s", name, m[0])
			}
		}
		if name == "status.js" && n < 20 {
			t.Errorf("%s: %d nodes", name, n)
		}
	}
}
