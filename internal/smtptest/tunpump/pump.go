package tunpump

import (
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// pump carries the packets of one direction: receive takes them from one
// device, send puts them into the other after the delay. Both end when their
// device is closed.
type pump struct {
	src   io.Reader
	dst   io.Writer
	delay time.Duration
	loss  float64
	dice  *rand.Rand // receive's own

	sent, dropped atomic.Int64
	cut           atomic.Bool // drop all

	pool sync.Pool // of *packet

	mu      sync.Mutex // protects below
	waiting []*packet  // in order of arrival, so also of due
	closed  bool
	wake    chan struct{} // holds a token if waiting or closed has changed
}

type packet struct {
	due  time.Time
	n    int
	data [mtu]byte
}

func newPump(src io.Reader, dst io.Writer, cfg Config, direction uint64) *pump {
	p := &pump{
		src:   src,
		dst:   dst,
		delay: cfg.Delay,
		loss:  cfg.Loss,
		dice:  rand.New(rand.NewPCG(cfg.Seed, direction)),
		wake:  make(chan struct{}, 1),
	}
	p.pool.New = func() any { return new(packet) }
	return p
}

func (p *pump) stats() Stats {
	return Stats{Sent: p.sent.Load(), Dropped: p.dropped.Load()}
}

// receive reads packets as they come, so that their delay begins on time.
func (p *pump) receive() {
	defer p.finish()
	for {
		k := p.pool.Get().(*packet)
		n, err := p.src.Read(k.data[:])
		if err != nil {
			return
		}
		if n == 0 || k.data[0]>>4 != 4 { // neighbour discovery of IPv6
			p.pool.Put(k)
			continue
		}
		p.sent.Add(1)
		if p.cut.Load() || p.loss > 0 && p.dice.Float64() < p.loss {
			p.dropped.Add(1)
			p.pool.Put(k)
			continue
		}
		k.n, k.due = n, time.Now().Add(p.delay)
		p.mu.Lock()
		p.waiting = append(p.waiting, k)
		p.mu.Unlock()
		p.nudge()
	}
}

// send delivers each packet when it is due.
func (p *pump) send() {
	for {
		batch, closed := p.take()
		if closed {
			return
		}
		for _, k := range batch {
			if wait := time.Until(k.due); wait > 0 {
				time.Sleep(wait)
			}
			if _, err := p.dst.Write(k.data[:k.n]); err != nil {
				// The device is closed: receive, which reads the other one,
				// ends by itself.
				return
			}
			p.pool.Put(k)
		}
	}
}

// take waits for packets and removes all that wait.
func (p *pump) take() (batch []*packet, closed bool) {
	for {
		p.mu.Lock()
		batch, closed = p.waiting, p.closed
		p.waiting = nil
		p.mu.Unlock()
		if closed || len(batch) > 0 {
			return batch, closed
		}
		<-p.wake
	}
}

func (p *pump) finish() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.nudge()
}

func (p *pump) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
