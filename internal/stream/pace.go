package stream

import (
	"math"

	"smtplb/internal/reactor"
	"smtplb/internal/script"
	"smtplb/internal/smtp"
)

// Rates, as nginx has them in ngx_stream_proxy_process: a half with one reads
// no more than its rate allows for each second begun, the second in which the
// session asked for its first server included, and rests after each read for as
// long as the rate takes for what was read.
//
// A half that may not read leaves the bytes in the kernel, and the session's
// timer wakes it. That timer is up to a tick late, so a rest is counted from
// when it was to begin: what was lost by waking late is made up for. While a
// half rests, silence is our doing, and Route.Timeout begins when its rest ends.

// Rate is how many bytes a second a session moves one way.
type Rate struct {
	Bytes int64 // at most maxRate; 0: any number
	// Value becomes that number in each session, in place of Bytes.
	Value *script.Value
}

// maxRate is so low that what a session may move in many years can be counted.
const maxRate = 1 << 32

// pace is the rate of a half and what it has done to it.
type pace struct {
	rate   int64 // bytes a second
	from   int64 // second of the loop's clock in which counting began
	rested int64 // µs of the loop's clock at which the rest ends
	waits  bool  // bytes may be waiting, and are not read before then
}

// begin starts counting, at now in ms.
func (p *pace) begin(rate, now int64) {
	*p = pace{rate: rate, from: now / 1000, rested: now * 1000}
}

// chooseRates evaluates the rates of a session that has just got its server, as
// ngx_stream_proxy_init_upstream does.
func (w *worker) chooseRates(s *session) {
	if v := s.route.UploadRate.Value; v != nil {
		s.up.pace.rate = w.rate(s, v)
	}
	if v := s.route.DownloadRate.Value; v != nil {
		s.down.pace.rate = w.rate(s, v)
	}
}

// rate is what the value becomes; what is no size is no limit.
func (w *worker) rate(s *session, v *script.Value) int64 {
	w.text = v.Append(w.text[:0], w.variables(s))
	n, ok := parseSize(w.text)
	if !ok {
		w.complain(s, `invalid size "`+smtp.Printable(w.text, smtp.LogLimit)+`"`)
	}
	return min(n, maxRate)
}

// parseSize reads a number of bytes as ngx_parse_size does: "4096", "16k", "1m".
// What is none is 0.
func parseSize(text []byte) (n int64, ok bool) {
	unit := int64(1)
	if last := len(text) - 1; last >= 0 {
		switch text[last] {
		case 'k', 'K':
			unit, text = 1<<10, text[:last]
		case 'm', 'M':
			unit, text = 1<<20, text[:last]
		}
	}
	for _, c := range text {
		if c < '0' || c > '9' || n > (math.MaxInt64/unit-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n * unit, len(text) > 0
}

// allow returns how many bytes the half may read at once now. When there are
// none, it waits. One that is held back reads no more than a buffer or what a
// tick is worth, so that it flows and does not gush.
func (h *half) allow(now int64, buffer int) int {
	p := &h.pace
	if p.rate == 0 {
		return spliceBytes
	}
	if p.rested <= now*1000 {
		n := p.rate*(now/1000-p.from+1) - h.in
		if n > 0 {
			return int(min(n, max(int64(buffer), p.rate*reactor.Tick/1000), spliceBytes))
		}
		// Until the second that allows more. nginx sleeps towards it step by step.
		p.rested = (p.from + h.in/p.rate) * 1_000_000
	}
	p.waits = true
	return 0
}

// rest books a read of n bytes.
func (p *pace) rest(n int, now int64) {
	if p.rate == 0 {
		return
	}
	const made = 5 * reactor.Tick // ms: what at most is made up for
	p.rested = max(p.rested, (now-made)*1000) + int64(n)*1_000_000/p.rate
}

// until is when, in ms, the rest ends.
func (p *pace) until() int64 { return (p.rested + 999) / 1000 }

// wakes cuts a deadline to the time at which a half that waits may read again.
func (s *session) wakes(deadline int64) int64 {
	for _, p := range [...]*pace{&s.up.pace, &s.down.pace} {
		if p.waits {
			deadline = min(deadline, p.until())
		}
	}
	return deadline
}

// waits reports whether one of the session's halves may not read now.
func (s *session) waits() bool { return s.up.pace.waits || s.down.pace.waits }
