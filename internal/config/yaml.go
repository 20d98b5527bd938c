package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// yaml reads a file by its nodes, which know their lines.
func (m *merged) yaml(path string, text []byte) error {
	doc, err := parseYAML(text)
	if err != nil {
		e := &Error{Source: path, Why: strings.TrimPrefix(err.Error(), "yaml: ")}
		if at := yamlLine.FindStringSubmatch(e.Why); at != nil {
			if n, convErr := strconv.Atoi(at[1]); convErr == nil {
				e.Line, e.Why = n, strings.TrimPrefix(e.Why, at[0])
			}
		}
		return e
	}
	if doc == nil {
		return nil
	}
	return m.mapping(path, "", doc)
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// parseYAML returns the root of the one document, nil when there is nothing. The
// parser panics on some malformed input (go-yaml#665 and the like); a
// configuration file that does so is malformed, not a reason to fall over.
func parseYAML(text []byte) (root *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("not YAML: %v", p)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root = doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// mapping takes the keys of one level: the root, or a section.
func (m *merged) mapping(path, section string, n *yaml.Node) error {
	refuse := func(n *yaml.Node, key, why string) error {
		return &Error{Key: key, Source: path, Line: n.Line, Why: why}
	}
	if n.Kind != yaml.MappingNode {
		return refuse(n, section, "expected keys and values, as in \"listen: :8080\"")
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := name.Value
		if section != "" {
			key = section + "." + key
		}
		if name.Kind != yaml.ScalarNode {
			return refuse(name, section, "a key must be a word")
		}
		if first, again := seen[key]; again {
			return refuse(name, key, fmt.Sprintf("set twice, first in line %d", first))
		}
		seen[key] = name.Line
		if section == "" && isSection(key) {
			if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
				continue // a section whose keys are all commented out
			}
			if err := m.mapping(path, key, value); err != nil {
				return err
			}
			continue
		}
		f, ok := lookup(key)
		if !ok {
			return refuse(name, key, unknown(key))
		}
		v, err := f.fromNode(value)
		if err != nil {
			return refuse(value, key, err.Error())
		}
		if err := m.set(f, v, Error{Source: path, Line: value.Line}); err != nil {
			return err
		}
	}
	return nil
}

func isSection(name string) bool {
	for _, f := range fields {
		if f.section == name && name != "" {
			return true
		}
	}
	return false
}

// fromNode takes scalars as they are written, so that 8080 and "8080" are alike.
func (f Field) fromNode(n *yaml.Node) (any, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, errors.New(`has no value; write "" for an empty one, or remove the key`)
	case f.List && n.Kind == yaml.SequenceNode:
		list := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("takes %s", f.Allowed())
			}
			list = append(list, item.Value)
		}
		return f.parseList(list)
	case f.List:
		return nil, fmt.Errorf("takes %s: write it as [a, b]", f.Allowed())
	case n.Kind != yaml.ScalarNode:
		return nil, fmt.Errorf("takes a single value: %s", f.Allowed())
	}
	return f.parse(n.Value)
}
