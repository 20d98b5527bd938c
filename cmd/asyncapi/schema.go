package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/parley-jami/parley/bus/contract"
)

// object is a JSON object; encoding/json writes its keys in order.
type object = map[string]any

// field is one field of a JSON object, embedded ones flattened as encoding/json
// does.
type field struct {
	name, doc string
	typ       reflect.Type
	optional  bool
	asString  bool // the tag's ",string"
}

// schemas makes JSON schemas of Go types.
type schemas struct {
	src   *source
	done  map[string]object       // by type name
	kinds map[string]reflect.Type // by type name
}

func newSchemas(src *source) *schemas {
	return &schemas{src: src, done: map[string]object{}, kinds: map[string]reflect.Type{}}
}

var (
	timeType  = reflect.TypeFor[time.Time]()
	bytesType = reflect.TypeFor[[]byte]()
)

// of returns the schema of t: a reference for a struct or an enumeration.
func (s *schemas) of(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t == bytesType:
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.String:
		if len(s.src.enums[t.Name()]) == 0 {
			return object{"type": "string"}
		}
		s.define(t, func() object {
			return object{"type": "string", "enum": s.src.enums[t.Name()]}
		})
		return ref("schemas", t.Name())
	case reflect.Struct:
		s.define(t, func() object { return s.ofStruct(t) })
		return ref("schemas", t.Name())
	default:
		panic(fmt.Sprintf("asyncapi: no schema for %s", t))
	}
}

func (s *schemas) define(t reflect.Type, make func() object) {
	if _, ok := s.done[t.Name()]; ok {
		return
	}
	s.done[t.Name()], s.kinds[t.Name()] = object{}, t // ends a recursion
	o := make()
	if doc := s.src.types[t.Name()]; doc != "" {
		o["description"] = doc
	}
	s.done[t.Name()] = o
}

func (s *schemas) ofStruct(t reflect.Type) object {
	props, required := object{}, []string{}
	for _, f := range s.fields(t) {
		p := s.of(f.typ)
		if f.asString {
			p = object{"type": "string", "pattern": "^[0-9]+$"}
		}
		if f.doc != "" {
			p["description"] = f.doc // beside a $ref too: JSON Schema draft 7 readers ignore it, later ones do not
		}
		props[f.name] = p
		if !f.optional {
			required = append(required, f.name)
		}
	}
	o := object{"type": "object", "properties": props}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// fields returns the fields of a struct in the order of the source.
func (s *schemas) fields(t reflect.Type) []field {
	var out []field
	for f := range t.Fields() {
		if f.Anonymous && f.Tag.Get("json") == "" {
			out = append(out, s.fields(f.Type)...)
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out = append(out, field{name: name, doc: s.src.fields[t.Name()][f.Name], typ: f.Type,
			optional: strings.Contains(opts, "omit"), asString: strings.Contains(opts, "string")})
	}
	return out
}

func ref(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }

// typeName is how a type is called in the text: "[]string", "Participant".
func typeName(t reflect.Type) string {
	switch {
	case t == timeType:
		return "time"
	case t == bytesType:
		return "base64"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "[]" + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	}
	return t.Name()
}

var none = reflect.TypeFor[contract.None]()
