// Command parley is a headless Jami node that hosts conferences.
package main

import "fmt"

func main() { fmt.Println(len(processes)) }
