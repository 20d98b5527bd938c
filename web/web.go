// Package web holds the pages that the node serves: plain HTML, CSS and ES
// modules without a build step, so that what is read here is what runs.
//
//	start.html     a field for the room's name
//	room.html      before joining, and the room
//	operator.html  accounts, processes, rooms and bots, live
//	assets/        styles and modules; room/ and operator/ by page
package web

import "embed"

// Files is the pages' tree.
//
//go:embed start.html room.html operator.html assets
var Files embed.FS
