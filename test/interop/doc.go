// Package interop drives real peers against a running node: Chromium, baresip,
// sipp, git, and the node's own processes being killed. It is built with the
// tag interop and run by run.sh, which installs what it needs.
package interop
