package healthcheck

import (
	"container/heap"
	"context"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
)

// maxRunning is how many probes run at once. A probe that is due waits for its
// turn, the longest waiting first.
const maxRunning = 256

// Checker probes targets until it is stopped.
type Checker struct {
	log    *zap.Logger
	dial   dialFunc
	stalls stalls

	ctx    context.Context // done when Stop begins; every probe's ends with it
	cancel context.CancelFunc
	wg     sync.WaitGroup // run, watch and the visits

	updates chan update
	ended   chan ended
	wake    chan struct{} // holds one if there is something in wanted

	mu     sync.Mutex // protects below; never held while waiting
	wanted map[Reporter]struct{}

	// owned by run

	targets map[Reporter]*target
	checks  map[Settings]*check
	queue   queue
	running int

	complained time.Time // of a fault of our own
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

type update struct {
	targets []Target
	done    chan struct{}
}

type ended struct {
	check   *check
	outcome outcome
}

// New starts a Checker that has no targets yet.
func New(logger *zap.Logger) *Checker {
	return start(logger, (&net.Dialer{KeepAlive: -1}).DialContext)
}

func start(logger *zap.Logger, dial dialFunc) *Checker {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Checker{
		log:     logger,
		dial:    dial,
		ctx:     ctx,
		cancel:  cancel,
		updates: make(chan update),
		ended:   make(chan ended),
		wake:    make(chan struct{}, 1),
		wanted:  make(map[Reporter]struct{}),
		targets: make(map[Reporter]*target),
		checks:  make(map[Settings]*check),
	}
	c.wg.Go(c.run)
	c.wg.Go(func() { c.stalls.watch(ctx) })
	return c
}

// Update makes targets all there is to probe. Those whose Reporter was there
// before go on from where they are; if a Reporter stands there twice, the later
// one counts. Reporters that are gone are not called any more once Update has
// returned, and a probe that nobody needs any longer is cut.
//
// It may be called from any goroutine that holds nothing a Reporter's Probed
// waits for. After Stop it does nothing.
func (c *Checker) Update(targets []Target) {
	u := update{targets: targets, done: make(chan struct{})}
	select {
	case c.updates <- u:
		<-u.done
	case <-c.ctx.Done():
		c.wg.Wait()
	}
}

// ProbeNow asks for a probe of r's target as soon as may be: at once, or a
// second after the end of the last one, or of the one that is running. It may
// be called from any goroutine, as often as one likes, and does not wait. It is
// ignored if r is nobody's Reporter.
func (c *Checker) ProbeNow(r Reporter) {
	c.mu.Lock()
	c.wanted[r] = struct{}{}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Stop cuts every probe and returns when all of them have ended. No Reporter is
// called from then on. It may be called more than once.
func (c *Checker) Stop() {
	c.cancel()
	c.wg.Wait()
}

// run is the scheduler.
func (c *Checker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.startDue(time.Now())
		timer.Stop()
		if len(c.queue) > 0 && c.running < maxRunning {
			timer.Reset(time.Until(c.queue[0].due))
		}
		select {
		case <-timer.C:
		case <-c.wake:
			c.takeWanted(time.Now())
		case u := <-c.updates:
			c.apply(u.targets, time.Now())
			close(u.done)
		case e := <-c.ended:
			c.running--
			c.takeWanted(time.Now()) // who asked before the end did not ask for this one
			c.finish(e.check, e.outcome, time.Now())
		case <-c.ctx.Done():
			for ; c.running > 0; c.running-- {
				<-c.ended
			}
			return
		}
	}
}

// startDue starts the probes that are due, as many as may run.
func (c *Checker) startDue(now time.Time) {
	for len(c.queue) > 0 && c.running < maxRunning && !c.queue[0].due.After(now) {
		k := heap.Pop(&c.queue).(*check)
		ctx, cancel := context.WithCancel(c.ctx)
		k.begin(cancel)
		c.running++
		c.wg.Go(func() { c.visit(ctx, k) })
	}
}

// visit makes one probe, on a goroutine of its own; of k it uses the settings
// only. The scheduler waits for the end of each.
func (c *Checker) visit(ctx context.Context, k *check) {
	e := ended{check: k, outcome: outcome{fault: "the probe has panicked"}}
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("probe panicked", zap.String("peer", k.settings.Address), zap.Any("panic", p), zap.Stack("stack"))
		}
		c.ended <- e
	}()
	began := time.Now()
	o := examine(ctx, c.dial, k.settings)
	if !o.good && c.stalls.between(began, time.Now()) {
		o = outcome{fault: "the process did not run for a while"}
	}
	e.outcome = o
}

// takeWanted brings forward what ProbeNow has asked for.
func (c *Checker) takeWanted(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.wanted {
		t := c.targets[r]
		switch {
		case t == nil:
		case t.check.running():
			t.again = true
		default:
			c.reschedule(t.check, earlier(t.check.due, t.check.soonest(now)))
		}
	}
	clear(c.wanted)
}

func (c *Checker) schedule(k *check, due time.Time) {
	k.due = due
	heap.Push(&c.queue, k)
}

func (c *Checker) reschedule(k *check, due time.Time) {
	k.due = due
	heap.Fix(&c.queue, k.index)
}

// finish takes the outcome of k's probe, which ends now, to its targets.
func (c *Checker) finish(k *check, o outcome, now time.Time) {
	k.cancel()
	k.cancel = nil
	if len(k.targets) == 0 {
		delete(c.checks, k.settings)
		return
	}
	var wanted time.Duration
	want := func(within time.Duration) {
		if within > 0 && (wanted == 0 || within < wanted) {
			wanted = within
		}
	}
	switch {
	case k.cut || c.ctx.Err() != nil:
		want(hurry)
	case o.fault != "":
		want(hurry)
		c.complain(k, o, now)
	default:
		for _, t := range k.targets {
			was := t.state
			r := t.count(o)
			c.logResult(t, was, r)
			want(c.report(t, r))
			if t.again || t.rising() {
				want(hurry)
			}
		}
		c.lookAt(k, o.cert, now)
	}
	c.schedule(k, k.next(now, wanted))
	k.ended = now
}

// report calls t's Reporter. What that does wrong must not end every session of
// the process.
func (c *Checker) report(t *target, r Result) (wanted time.Duration) {
	defer func() {
		if p := recover(); p != nil {
			c.logOf(t).Error("report of a probe panicked", zap.String("upstream", t.Upstream),
				zap.String("peer", t.Name), zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	return t.Reporter.Probed(r)
}
