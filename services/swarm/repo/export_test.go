package repo

import "time"

// SetBackSpan changes how far conversations are dated back, and returns what it was.
func SetBackSpan(d time.Duration) time.Duration {
	was := backSpan
	backSpan = d
	return was
}
