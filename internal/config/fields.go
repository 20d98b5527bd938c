package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Field is one key, as the tags of [Config] describe it.
type Field struct {
	Key     string // "http.tls_listen"
	Env     string // "PARLEY_HTTP_TLS_LISTEN"
	Doc     string
	Default string // as it would stand in the environment
	List    bool   // several values: a YAML sequence, or separated by commas

	kind    reflect.Kind
	enum    []string
	min     int
	max     int
	check   string
	section string
	index   []int
}

// EnvPrefix starts the environment variables of the configuration.
const EnvPrefix = "PARLEY_"

var fields = describe(reflect.TypeFor[Config](), "", nil)

// Fields returns every key in the order of the source.
func Fields() []Field { return slices.Clone(fields) }

// describe reads the tags. A tag that does not parse is a mistake in this
// package and panics at the start of every test.
func describe(t reflect.Type, prefix string, index []int) []Field {
	var out []Field
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(slices.Clone(index), i)
		key := sf.Tag.Get("koanf")
		if sf.Type.Kind() == reflect.Struct {
			out = append(out, describe(sf.Type, prefix+key+".", at)...)
			continue
		}
		f := Field{
			Key: prefix + key, Doc: sf.Tag.Get("doc"), Default: sf.Tag.Get("default"), List: sf.Type.Kind() == reflect.Slice,
			Env:  EnvPrefix + strings.ToUpper(strings.ReplaceAll(prefix+key, ".", "_")),
			kind: sf.Type.Kind(), check: sf.Tag.Get("check"), section: strings.TrimSuffix(prefix, "."), index: at,
		}
		if e := sf.Tag.Get("enum"); e != "" {
			f.enum = strings.Split(e, ",")
		}
		if r := sf.Tag.Get("range"); r != "" {
			if _, err := fmt.Sscanf(r, "%d-%d", &f.min, &f.max); err != nil {
				panic("config: range of " + f.Key + ": " + err.Error())
			}
		}
		if f.check != "" && checks[f.check].ok == nil {
			panic("config: check of " + f.Key + ": " + f.check)
		}
		out = append(out, f)
	}
	return out
}

func lookup(key string) (Field, bool) {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == key })
	if i < 0 {
		return Field{}, false
	}
	return fields[i], true
}

// Allowed says in words what the field takes.
func (f Field) Allowed() string {
	switch {
	case f.enum != nil:
		return "one of " + strings.Join(f.enum, ", ")
	case f.max > f.min:
		return fmt.Sprintf("a whole number from %d to %d", f.min, f.max)
	case f.kind == reflect.Int:
		return "a whole number"
	case f.kind == reflect.Bool:
		return "true or false"
	case f.check != "" && f.List:
		return "a list, each " + checks[f.check].words
	case f.check != "":
		return checks[f.check].words
	case f.List:
		return "a list of texts"
	}
	return "a text"
}

// parse turns a text into the field's type and checks it. It returns what koanf
// keeps: string, []string, int or bool.
func (f Field) parse(s string) (any, error) {
	switch f.kind {
	case reflect.Slice:
		list := []string{}
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		return f.parseList(list)
	case reflect.Int:
		n, err := strconv.Atoi(s)
		if err != nil || (f.max > f.min && (n < f.min || n > f.max)) {
			return nil, f.refuse(s)
		}
		return n, nil
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, f.refuse(s)
		}
		return b, nil
	}
	if !f.fits(s) {
		return nil, f.refuse(s)
	}
	return s, nil
}

func (f Field) parseList(list []string) (any, error) {
	for _, s := range list {
		// A comma would part the value when the supervisor hands it to a child.
		if s == "" || strings.Contains(s, ",") || !f.fits(s) {
			return nil, f.refuse(s)
		}
	}
	return list, nil
}

func (f Field) fits(s string) bool {
	if strings.ContainsAny(s, "\x00\n\r") {
		return false // could not stand in the environment or the log
	}
	if f.enum != nil && !slices.Contains(f.enum, s) {
		return false
	}
	return f.check == "" || checks[f.check].ok(s)
}

func (f Field) refuse(s string) error {
	const long = 120
	if len(s) > long {
		s = s[:long] + "…"
	}
	return fmt.Errorf("%q is not allowed; it takes %s", s, f.Allowed())
}

// format is the reverse of parse.
func (f Field) format(c *Config) string {
	v := reflect.ValueOf(c).Elem().FieldByIndex(f.index)
	switch f.kind {
	case reflect.Slice:
		return strings.Join(v.Interface().([]string), ",")
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return v.String()
}
