// Package interop drives real peers against a running node: Chromium, baresip,
// sipp, git, and the node's own processes being killed; and stock Jami daemons,
// in a network of their own (see rig). It is built with the tag interop and run by
// run.sh, which installs what it needs.
package interop
