package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// source is what reflection cannot tell of the contract.
type source struct {
	types  map[string]string            // doc of a type
	fields map[string]map[string]string // doc of a field, by type and Go name
	enums  map[string][]string          // values of a string type, in the order of the source
	errors []errorDoc
	heads  []headerDoc
}

type errorDoc struct {
	code, message string
	retry         bool
}

type headerDoc struct{ name, doc string }

// readSource parses the Go files of a folder, tests aside.
func readSource(dir string) (*source, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no Go files in %s: %w", dir, os.ErrNotExist)
	}
	s := &source{types: map[string]string{}, fields: map[string]map[string]string{}, enums: map[string][]string{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				s.decl(g)
			}
		}
	}
	return s, nil
}

func (s *source) decl(g *ast.GenDecl) {
	for _, sp := range g.Specs {
		switch sp := sp.(type) {
		case *ast.TypeSpec:
			s.typeSpec(sp, text(sp.Doc, g.Doc))
		case *ast.ValueSpec:
			if g.Tok == token.CONST {
				s.constSpec(sp)
			} else {
				s.varSpec(sp)
			}
		}
	}
}

func (s *source) typeSpec(sp *ast.TypeSpec, doc string) {
	s.types[sp.Name.Name] = doc
	st, ok := sp.Type.(*ast.StructType)
	if !ok {
		return
	}
	fs := map[string]string{}
	for _, f := range st.Fields.List {
		for _, n := range f.Names {
			fs[n.Name] = text(f.Doc, f.Comment)
		}
	}
	s.fields[sp.Name.Name] = fs
}

func (s *source) constSpec(sp *ast.ValueSpec) {
	for i, n := range sp.Names {
		if i >= len(sp.Values) {
			continue
		}
		v, ok := str(sp.Values[i])
		if !ok {
			continue
		}
		if id, ok := sp.Type.(*ast.Ident); ok {
			s.enums[id.Name] = append(s.enums[id.Name], v)
		} else if strings.HasPrefix(n.Name, "Header") {
			s.heads = append(s.heads, headerDoc{v, text(sp.Comment)})
		}
	}
}

// varSpec takes the errors: ErrX = &Error{Code: …, Message: …, Retry: true}.
func (s *source) varSpec(sp *ast.ValueSpec) {
	for _, v := range sp.Values {
		u, ok := v.(*ast.UnaryExpr)
		if !ok {
			continue
		}
		lit, ok := u.X.(*ast.CompositeLit)
		if !ok {
			continue
		}
		if id, ok := lit.Type.(*ast.Ident); !ok || id.Name != "Error" {
			continue
		}
		var e errorDoc
		for _, el := range lit.Elts {
			kv, ok := el.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch fmt.Sprint(kv.Key) {
			case "Code":
				e.code, _ = str(kv.Value)
			case "Message":
				e.message, _ = str(kv.Value)
			case "Retry":
				e.retry = fmt.Sprint(kv.Value) == "true"
			}
		}
		s.errors = append(s.errors, e)
	}
}

func str(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	v, err := strconv.Unquote(lit.Value)
	return v, err == nil
}

// text joins the first comment that is there to one line.
func text(groups ...*ast.CommentGroup) string {
	for _, g := range groups {
		if t := strings.Join(strings.Fields(g.Text()), " "); t != "" {
			return t
		}
	}
	return ""
}
