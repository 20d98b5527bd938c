package jami

import (
	"errors"
	"runtime"
	"testing"
)

// TestAnnouncedLengthsTakeNoMemory: lengths that a value only claims are not made room for.
func TestAnnouncedLengthsTakeNoMemory(t *testing.T) {
	for name, s := range map[string]string{
		"map":               "\xdf\xff\xff\xff\xff\xa2idabc",
		"key":               "\x81\xdb\xff\xff\xff\xffabc",
		"key in bin":        "\x81\xc6\xff\xff\xff\xffabc",
		"key below the end": "\x82\xa2id\x01\xdb\x7f\xff\xff\xffabc",
		"unknown text":      "\x82\xa2id\x01\xa1x\xdb\xff\xff\xff\xffabc",
		"unknown extension": "\x82\xa2id\x01\xa1x\xc9\xff\xff\xff\xff\x01abc",
		"unknown list":      "\x82\xa2id\x01\xa1x\xdd\xff\xff\xff\xffabc",
		"cypher text":       "\x82\xa2id\x01\xa3dat\xc6\xff\xff\xff\xffabc",
		"data":              "\x82\xa2id\x01\xa3dat\x81\xa4body\x81\xa4data\xdb\xff\xff\xff\xffabc",
	} {
		const times = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			if _, err := ParseValue([]byte(s)); !errors.Is(err, ErrValue) {
				t.Errorf("%s: %v", name, err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / times; each > 4096 {
			t.Errorf("%s: %d bytes", name, each)
		}
	}
}
