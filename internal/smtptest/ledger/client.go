package ledger

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"smtplb/internal/smtptest"
)

// Client sends mail and remembers what came of it. Its fields are set before
// its first session and not changed; the zero value of each means what its
// comment says. Methods may be called from any goroutine.
type Client struct {
	Addr        string        // to connect to: host:port, or unix:path
	Sessions    int           // to run; 0: until Run's context is done
	Concurrency int           // sessions at a time; 0: 1, or 1000 with a Rate
	Rate        float64       // sessions begun a second, whether others have ended or not; 0: no limit
	Mails       int           // messages a session; 0: 1
	Size        int           // of a message's body in bytes, about; 0: 4096
	From, To    string        // mailboxes; "": sender@example.com, recipient@example.com
	Timeout     time.Duration // of connecting, and of each reply; 0: 30 s
	CloseFirst  bool          // close after 221 without waiting for the server's end of file

	// Dial connects; nil means net.Dialer. A link's Dial puts the client on
	// the far side.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	setUp  sync.Once
	prefix string // of this client's ids
	filler string // bodies are cut from it, from any of the first lines on
	nextID atomic.Int64

	mu       sync.Mutex // protects below
	history  []Session
	banners  []time.Duration // connect to greeting
	commands []time.Duration // each command to its reply, the final dot too
}

func (c *Client) prepare() {
	c.setUp.Do(func() {
		if c.Rate > 0 {
			c.Concurrency = orElse(c.Concurrency, 1000)
		}
		c.Concurrency = orElse(c.Concurrency, 1)
		c.Mails = orElse(c.Mails, 1)
		c.Size = orElse(c.Size, 4096)
		c.From = orElse(c.From, "sender@example.com")
		c.To = orElse(c.To, "recipient@example.com")
		c.Timeout = orElse(c.Timeout, 30*time.Second)
		if c.Dial == nil {
			c.Dial = new(net.Dialer).DialContext
		}
		c.prefix = rand.Text()[:10]
		c.filler = makeFiller(c.Size + period*(lineLength+2))
	})
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Run runs the sessions and returns when all have ended. When ctx is done it
// begins no more, and lets those that run come to their end. It may be called
// again: the ledger goes on.
func (c *Client) Run(ctx context.Context) {
	c.prepare()
	begin := make(chan struct{})
	var workers sync.WaitGroup
	idle := make(chan struct{}, c.Concurrency) // a token for each that could be added
	for range c.Concurrency {
		idle <- struct{}{}
	}
	begun := time.Now()
	for n := 0; c.Sessions == 0 || n < c.Sessions; n++ {
		if !c.pace(ctx, begun, n) {
			break
		}
		// A waiting worker is taken first, else a new one is added.
		select {
		case begin <- struct{}{}:
			continue
		default:
		}
		select {
		case <-ctx.Done():
		case begin <- struct{}{}:
		case <-idle:
			workers.Go(func() {
				c.session()
				for range begin {
					c.session()
				}
			})
		}
	}
	close(begin)
	workers.Wait()
}

// pace waits until the nth session may begin; false means that none may.
func (c *Client) pace(ctx context.Context, begun time.Time, n int) bool {
	if ctx.Err() != nil {
		return false
	}
	if c.Rate <= 0 {
		return true
	}
	due := begun.Add(time.Duration(float64(n) / c.Rate * float64(time.Second)))
	wait := time.Until(due)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session runs one session from connecting to its end.
func (c *Client) session() {
	d := c.newDialogue()
	defer d.finish()
	if !d.open(context.Background()) {
		return
	}
	for range c.Mails {
		if !d.mail() {
			return
		}
	}
	d.quit()
}

// newID makes an id that no other message has, of this client or another.
func (c *Client) newID() string {
	return fmt.Sprintf("%s-%06d", c.prefix, c.nextID.Add(1))
}

// History is what each session came to, in the order in which they ended.
func (c *Client) History() []Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Session(nil), c.history...)
}

// Ended is the number of sessions that have ended: what a test polls to act in
// the middle of a run.
func (c *Client) Ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.history)
}

// Tally sums the history up.
func (c *Client) Tally() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Tally{
		Sessions: len(c.history),
		Refused:  make(map[Phase]int),
		Broken:   make(map[Phase]int),
		Codes:    make(map[int]int),
		Banner:   smtptest.Summarize(c.banners),
		Command:  smtptest.Summarize(c.commands),
	}
	for i := range c.history {
		t.add(&c.history[i])
	}
	return t
}

func (c *Client) record(d *dialogue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history = append(c.history, d.Session)
	if d.banner > 0 {
		c.banners = append(c.banners, d.banner)
	}
	c.commands = append(c.commands, d.commands...)
}
