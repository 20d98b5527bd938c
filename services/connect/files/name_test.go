package files

import (
	"errors"
	"strings"
	"testing"

	"github.com/parley-jami/parley/internal/jami"
)

var (
	conv   = strings.Repeat("c0", 20)
	commit = strings.Repeat("ab", 20)
	own    = jami.LongID{0xdd, 1}
)

func TestNames(t *testing.T) {
	head := "data-transfer://" + conv + "/" + own.String() + "/" + commit + "_"
	ref := Ref{conv, commit, "4711"}
	for s, want := range map[string]Request{
		head + "4711":                        {Ref: ref, Device: own},
		head + "4711.png":                    {Ref: ref, Device: own, Ext: "png"},
		head + "4711.png?start=65535&end=0":  {Ref: ref, Device: own, Ext: "png", Start: 65535},
		head + "4711?start=1&end=9":          {Ref: ref, Device: own, Start: 1, End: 9},
		head + "18446744073709551615.bücher": {Ref: Ref{conv, commit, "18446744073709551615"}, Device: own, Ext: "bücher"},
	} {
		got, err := ParseName(s)
		if err != nil || *got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
			continue
		}
		if got.Name() != s {
			t.Errorf("%s comes back as %s", s, got.Name())
		}
	}
	if got, err := ParseName(head + "1?sha3=x&start=5"); err != nil || got.Start != 5 {
		t.Errorf("with what is not known: %+v, %v", got, err)
	}
	for name, s := range map[string]string{
		"nothing": "", "another scheme": "git://x", "the scheme alone": "data-transfer:", "one part": "data-transfer://x", "four parts": head + "1/x",
		"a path": "data-transfer://" + conv + "/" + own.String() + "/../../etc/passwd", "no number": head, "a negative number": head + "-1", "a sign": head + "+1",
		"capitals": strings.Replace(head+"1", "ab", "AB", 1), "a short commit": "data-transfer://" + conv + "/" + own.String() + "/ab_1",
		"no device": "data-transfer://" + conv + "/me/" + commit + "_1", "a long extension": head + "1.extension", "an empty extension": head + "1.", "two extensions": head + "1.a.b",
		"NUL": head + "1.a\x00b", "an escape": head + "1.a%2f\x1b", "backslash": head + `1.a\b`, "a negative start": head + "1?start=-1", "a huge start": head + "1?start=9223372036854775808",
		"no start": head + "1?start=", "backwards": head + "1?start=5&end=3", "long": head + "1?" + strings.Repeat("x", 1024), "a huge number": head + strings.Repeat("9", 21),
	} {
		if got, err := ParseName(s); !errors.Is(err, ErrName) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, s := range []string{"profile.vcf", conv + "/" + own.String() + "/profile.vcf", conv + "/profile/" + commit + ".vcf", conv + "/" + own.String() + "/" + commit + ".vcf"} {
		if _, err := ParseName("data-transfer://" + s); !errors.Is(err, ErrProfile) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestExtensions(t *testing.T) {
	for name, want := range map[string][2]string{
		"a.png": {"png", "png"}, "a.tar.GZ": {"GZ", "gz"}, "a": {}, "a.": {}, ".profile": {"profile", "profile"}, "a.jpegxxxx": {}, "a.b c": {"b c", ""},
		"a.b/c": {}, "a.ü": {"ü", ""}, "a.\x00": {}, "a.x\ny": {}, `a.x\y`: {},
	} {
		if got := extOf(name); got != want[0] {
			t.Errorf("%q on the wire: %q, want %q", name, got, want[0])
		}
		if got := localExt(name); got != want[1] {
			t.Errorf("%q here: %q, want %q", name, got, want[1])
		}
	}
	for _, s := range []string{"", ".", "..", "../../x", "/etc/passwd", `..\x`, "a\x00b", "a\nb", "\x1b[31m", "a\xff", strings.Repeat("x", 256), "a\u202egpj.exe"} {
		if err := CheckName(s); !errors.Is(err, ErrName) {
			t.Errorf("%q is a name: %v", s, err)
		}
	}
	for _, s := range []string{"a.png", "Grüße aus München.txt", "CON", ".profile"} {
		if err := CheckName(s); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("data-transfer://" + conv + "/" + own.String() + "/" + commit + "_4711.png?start=1&end=2")
	f.Add("data-transfer://" + conv + "/" + own.String() + "/" + commit + "_1")
	f.Add("data-transfer://profile.vcf")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseName(s)
		if err != nil {
			return
		}
		if back, err := ParseName(r.Name()); err != nil || *back != *r {
			t.Errorf("%q is %+v, which is %+v, %v", s, r, back, err)
		}
		if name := localName(jami.ID{}, r.Ref, "x."+r.Ext); strings.Count(name, "/") != 1 || strings.ContainsAny(name, "\x00\\") || strings.Contains(name, "..") {
			t.Errorf("%q would be kept as %q", s, name)
		}
	})
}
