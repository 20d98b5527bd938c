package jami

import (
	"strings"
	"unicode/utf8"
)

// maxVCardName bounds the name of a vCard, in characters.
const maxVCardName = 128

// VCardName returns the formatted name (FN, RFC 6350 §6.2.1) of a vCard of at most
// [MaxPayload] bytes, of at most 128 characters; empty: it has none that can be read. It
// is what a stranger says: it may be any text, without control characters.
func VCardName(card []byte) string {
	if len(card) > MaxPayload || !utf8.Valid(card) {
		return ""
	}
	text := strings.ReplaceAll(string(card), "\r\n", "\n")
	text = strings.NewReplacer("\n ", "", "\n\t", "").Replace(text) // folded lines (RFC 6350 §3.2)
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, ":")
		name, params, _ := strings.Cut(strings.ToUpper(name), ";")
		if !ok || name != "FN" || strings.Contains(params, "QUOTED-PRINTABLE") { // of vCard 2.1; stock writes UTF-8
			continue
		}
		value = strings.NewReplacer(`\\`, `\`, `\,`, ",", `\;`, ";", `\n`, " ", `\N`, " ").Replace(value)
		value = strings.Map(func(r rune) rune {
			if r < ' ' || r >= 0x7f && r < 0xa0 {
				return -1
			}
			return r
		}, value)
		if value = strings.TrimSpace(value); utf8.RuneCountInString(value) > maxVCardName {
			value = string([]rune(value)[:maxVCardName])
		}
		return value
	}
	return ""
}

// VCard returns a vCard with a name, in the version that stock Jami writes.
func VCard(name string) []byte {
	name = strings.NewReplacer(`\`, `\\`, ",", `\,`, ";", `\;`, "\r", "", "\n", `\n`).Replace(name)
	return []byte("BEGIN:VCARD\nVERSION:2.1\nFN:" + name + "\nEND:VCARD")
}
