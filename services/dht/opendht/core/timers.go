package core

import (
	"container/heap"
	"time"
)

// never is when nothing is due; the upkeep runs far more often.
const never = time.Hour

// task is something to do at a time. The zero task is not queued.
type task struct {
	at    time.Time
	seq   uint64 // keeps the order of what is due at once
	fn    func()
	index int // in the queue, from 1; 0: not queued
}

// timers are tasks by time.
type timers struct {
	q   taskQueue
	seq uint64
}

// at queues fn.
func (t *timers) at(when time.Time, fn func()) *task {
	x := &task{fn: fn}
	t.set(x, when)
	return x
}

// set queues a task, or moves it.
func (t *timers) set(x *task, when time.Time) {
	t.seq++
	x.at, x.seq = when, t.seq
	if x.index > 0 {
		heap.Fix(&t.q, x.index-1)
		return
	}
	heap.Push(&t.q, x)
}

// sooner moves a task to an earlier time, or queues it.
func (t *timers) sooner(x *task, when time.Time) {
	if x.index == 0 || when.Before(x.at) {
		t.set(x, when)
	}
}

// stop takes a task, or nil, out.
func (t *timers) stop(x *task) {
	if x != nil && x.index > 0 {
		heap.Remove(&t.q, x.index-1)
	}
}

// run does what is due and returns when the next is.
func (t *timers) run(now time.Time) time.Time {
	for len(t.q) > 0 {
		x := t.q[0]
		if x.at.After(now) {
			return x.at
		}
		heap.Pop(&t.q)
		x.fn()
	}
	return now.Add(never)
}

type taskQueue []*task

func (q taskQueue) Len() int { return len(q) }
func (q taskQueue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q taskQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i+1, j+1
}
func (q *taskQueue) Push(x any) {
	t := x.(*task)
	*q = append(*q, t)
	t.index = len(*q)
}
func (q *taskQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = 0
	return t
}
