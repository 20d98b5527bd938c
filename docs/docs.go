// Package docs holds the generated description of the bus, for the node's pages.
package docs

import _ "embed"

// AsyncAPI is the AsyncAPI 3.0 document of all subjects, JSON.
//
//go:embed asyncapi.json
var AsyncAPI []byte

// Bus is the same for people, Markdown.
//
//go:embed bus.md
var Bus []byte
