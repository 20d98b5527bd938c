package supervise

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
)

// Bounds of what children print. A terminal that has been stopped must not stop
// the mixer: lines that nobody takes are dropped and counted.
const (
	outputQueue = 4096
	lineMax     = 64 << 10
)

// Output writes whole lines of many writers to one, in a goroutine of its own.
type Output struct {
	w     io.Writer
	lines chan []byte
	lost  atomic.Uint64
	quit  chan struct{}
	done  chan struct{}
}

// NewOutput starts the writing; Close ends it.
func NewOutput(w io.Writer) *Output {
	o := &Output{w: w, lines: make(chan []byte, outputQueue), quit: make(chan struct{}), done: make(chan struct{})}
	go o.run()
	return o
}

func (o *Output) run() {
	defer close(o.done)
	for {
		select {
		case line := <-o.lines:
			o.writeLine(line)
			continue
		case <-o.quit:
		}
		for { // what was queued before Close
			select {
			case line := <-o.lines:
				o.writeLine(line)
			default:
				return
			}
		}
	}
}

func (o *Output) writeLine(line []byte) {
	if n := o.lost.Swap(0); n > 0 {
		o.write(fmt.Appendf(nil, "parley: %d lines of output were lost here: they were not read fast enough\n", n))
	}
	o.write(line)
}

// write has nowhere to tell of an error: this is where errors are told.
func (o *Output) write(line []byte) {
	if _, err := o.w.Write(line); err != nil {
		o.lost.Add(1)
	}
}

// Close writes what is queued and ends. What is written later, by a library whose
// goroutine outlives its connection, is dropped. Close is called once.
func (o *Output) Close() {
	close(o.quit)
	<-o.done
}

// Write queues p, which must be whole lines. It never blocks and never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.put(bytes.Clone(p))
	return len(p), nil
}

// Sync makes Output a zapcore.WriteSyncer; lines are written as they come.
func (o *Output) Sync() error { return nil }

func (o *Output) put(line []byte) {
	select {
	case o.lines <- line:
	default:
		o.lost.Add(1)
	}
}

// lineWriter cuts what one child prints into lines. It belongs to the goroutine
// that copies from the child's pipe.
type lineWriter struct {
	out *Output
	buf []byte
}

func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.buf = append(l.buf, p...)
			if len(l.buf) > lineMax {
				l.flush()
			}
			break
		}
		l.out.put(append(l.buf, p[:i+1]...))
		l.buf, p = nil, p[i+1:]
	}
	return n, nil
}

// flush sends what has no line end yet, with one.
func (l *lineWriter) flush() {
	if len(l.buf) > 0 {
		l.out.put(append(l.buf, '\n'))
		l.buf = nil
	}
}
