package jami

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestVCardName(t *testing.T) {
	for card, want := range map[string]string{
		"":    "",
		"FN:": "",
		"BEGIN:VCARD\nVERSION:2.1\nFN:Küche\nPHOTO;ENCODING=BASE64;TYPE=PNG:AAAA\nEND:VCARD": "Küche",
		"BEGIN:VCARD\r\nN:x\r\nfn;charset=UTF-8:A\\, B\\\\\r\nEND:VCARD":                     "A, B\\",
		"FN:Long\n er\nEND:VCARD":              "Longer",
		"FN:a\x00\x1b[31mb":                    "a[31mb",
		"FN:\xff":                              "",
		"FN;ENCODING=QUOTED-PRINTABLE:=41":     "",
		"NOTE:FN\nXFN:no":                      "",
		"FN:" + strings.Repeat("ü", 1000):      strings.Repeat("ü", maxVCardName),
		"FN:x\n" + strings.Repeat("a", 64_001): "",
	} {
		if got := VCardName([]byte(card)); got != want {
			t.Errorf("%.60q: %q, want %q", card, got, want)
		}
	}
}

func FuzzVCardName(f *testing.F) {
	f.Add([]byte("BEGIN:VCARD\nVERSION:2.1\nFN:Alice\nEND:VCARD"))
	f.Add(VCard(`a,b;c\n`))
	f.Add([]byte("FN;X=Y:a\r\n b\\\\,c"))
	f.Fuzz(func(t *testing.T, card []byte) {
		name := VCardName(card)
		if utf8.RuneCountInString(name) > maxVCardName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			t.Errorf("%q", name)
		}
		if name != "" && strings.TrimSpace(name) == name {
			if again := VCardName(VCard(name)); again != name {
				t.Errorf("%q came back as %q", name, again)
			}
		}
	})
}
