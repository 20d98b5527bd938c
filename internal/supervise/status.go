package supervise

import (
	"time"

	"github.com/prometheus/procfs"
)

// Process is how one child is. UpS and CPUS are seconds, RSSBytes is bytes; a
// child that is down has PID 0 and no figures.
type Process struct {
	Name     string  `json:"name"`
	PID      int     `json:"pid"`
	UpS      float64 `json:"up_s"`
	CPUS     float64 `json:"cpu_s"` // utime + stime of this PID
	RSSBytes int64   `json:"rss_bytes"`
	Restarts int     `json:"restarts"`
	Ready    bool    `json:"ready"`
}

// Processes returns how the children are now, in the order of their specs.
func (s *Supervisor) Processes() []Process {
	out := make([]Process, len(s.children))
	for i, c := range s.children {
		p := Process{Name: c.Name, Restarts: int(c.restarts.Load()), Ready: c.ready.Load()}
		pid, since := c.current()
		if pid != 0 {
			p.PID, p.UpS = pid, time.Since(since).Seconds()
			p.CPUS, p.RSSBytes = usage(pid)
		}
		out[i] = p
	}
	return out
}

// usage reads /proc/PID/stat; a process that has just ended used nothing.
func usage(pid int) (cpu float64, rss int64) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0
	}
	st, err := p.Stat()
	if err != nil {
		return 0, 0
	}
	return st.CPUTime(), int64(st.ResidentMemory())
}
