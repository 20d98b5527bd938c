// Command parley is a headless Jami node that hosts conferences.
package main

import (
	"context"
	"os"
)

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ()}
	os.Exit(a.main(context.Background(), os.Args[1:]))
}
