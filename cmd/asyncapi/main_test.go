package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/parley-jami/parley/bus/contract"
)

const root = "../.."

func TestFilesAreFresh(t *testing.T) {
	if err := run(root, true); err != nil {
		t.Fatal(err)
	}
}

func TestSameContractSameBytes(t *testing.T) {
	first, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		again, err := generate(root)
		if err != nil {
			t.Fatal(err)
		}
		for name := range first {
			if !bytes.Equal(first[name], again[name]) {
				t.Fatalf("%s differs between two runs", name)
			}
		}
	}
}

func TestDocumentIsWhole(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(files["asyncapi.json"], &doc); err != nil {
		t.Fatal(err)
	}
	for _, d := range contract.All() {
		for _, kind := range []string{"channels", "operations"} {
			if _, ok := doc[kind].(map[string]any)[d.Name]; !ok {
				t.Errorf("%s: nothing in %s", d.Name, kind)
			}
		}
		for _, p := range d.Params() {
			if parameters[p] == "" {
				t.Errorf("%s: token %s has no description", d.Name, p)
			}
		}
		if !strings.Contains(string(files["bus.md"]), "`"+d.Pattern+"`") {
			t.Errorf("%s is not on the page", d.Name)
		}
	}
	refs := 0
	walk(doc, func(ref string) {
		refs++
		var at any = doc
		for _, tok := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			m, ok := at.(map[string]any)
			if !ok || m[tok] == nil {
				t.Errorf("%s leads nowhere", ref)
				return
			}
			at = m[tok]
		}
	})
	if refs == 0 {
		t.Error("no references at all")
	}
	enum := doc["components"].(map[string]any)["schemas"].(map[string]any)["Role"].(map[string]any)["enum"]
	if got, err := json.Marshal(enum); err != nil || string(got) != `["moderator","speaker","listener"]` {
		t.Errorf("roles are %s, %v", got, err)
	}
}

func walk(v any, see func(ref string)) {
	switch v := v.(type) {
	case map[string]any:
		if r, ok := v["$ref"].(string); ok {
			see(r)
		}
		for _, x := range v {
			walk(x, see)
		}
	case []any:
		for _, x := range v {
			walk(x, see)
		}
	}
}
