package healthcheck

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Manners, T29: fails if reply returns after the first line ("the client speaks
// before"), if dialogue does not read the greeting, if MAIL and RCPT go in one
// write, if part does not say QUIT, or closes before the server does.
func TestGoodServer(t *testing.T) {
	tests := []struct {
		name     string
		settings Settings
		replies  map[string][]string
		commands string
		why      string
	}{
		{"EHLO", Settings{}, nil, "EHLO lb.example.com, QUIT", "250 mx.example.com"},
		{"HELO", Settings{Verb: HELO}, nil, "HELO lb.example.com, QUIT", "250 mx.example.com"},
		{"LHLO", Settings{Verb: LHLO}, nil, "LHLO lb.example.com, QUIT", "250 mx.example.com"},
		{"EHLO refused", Settings{}, map[string][]string{"EHLO": {"502 5.5.1 no\r\n"}},
			"EHLO lb.example.com, HELO lb.example.com, QUIT", "250 mx.example.com"},
		{"mailbox", Settings{RcptTo: "probe@example.com", MailFrom: "me@example.org"}, nil,
			"EHLO lb.example.com, MAIL FROM:<me@example.org>, RCPT TO:<probe@example.com>, RSET, QUIT", "250 mx.example.com"},
		{"mailbox, null sender", Settings{RcptTo: "probe@example.com"}, nil,
			"EHLO lb.example.com, MAIL FROM:<>, RCPT TO:<probe@example.com>, RSET, QUIT", "250 mx.example.com"},
		{"unfriendly goodbye", Settings{}, map[string][]string{"QUIT": {"500-go\r\n500 away\r\n"}},
			"EHLO lb.example.com, QUIT", "250 mx.example.com"},
		{"line ends in LF, no text", Settings{}, map[string][]string{"": {"220\n"}, "EHLO": {"250-\x1b[2J\n250\n"}},
			"EHLO lb.example.com, QUIT", `250 \x1B[2J`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &strict{replies: tt.replies}
				o := s.visit(t, tt.settings)
				require.Empty(t, s.faults)
				require.Equal(t, outcome{good: true, why: tt.why}, o)
				require.Equal(t, tt.commands, strings.Join(s.commands, ", "))
				require.True(t, s.closed, "the server closes first")
			})
		})
	}
}

// Every step, and every way in which it can fail. Fails if stepError.outcome
// takes all refusals for hard, if the verdict of EHLO is not repeated for HELO,
// if a refused probe leaves without QUIT, or if one says it right after 421.
func TestFailingSteps(t *testing.T) {
	steps := []struct {
		name     string // as the log has it
		verb     string
		settings Settings
		missing  string
	}{
		{"greeting", "", Settings{}, "no greeting in "},
		{"EHLO", "EHLO", Settings{}, "no answer to EHLO in "},
		{"HELO", "HELO", Settings{Verb: HELO}, "no answer to HELO in "},
		{"LHLO", "LHLO", Settings{Verb: LHLO}, "no answer to LHLO in "},
		{"STARTTLS", "STARTTLS", Settings{TLS: StartTLS}, "no answer to STARTTLS in "},
		{"MAIL", "MAIL", Settings{RcptTo: "a@example.com"}, "no answer to MAIL in "},
		{"RCPT", "RCPT", Settings{RcptTo: "a@example.com"}, "no answer to RCPT in "},
		{"RSET", "RSET", Settings{RcptTo: "a@example.com"}, "no answer to RSET in "},
	}
	fates := []struct {
		reply string
		soft  bool
		quit  bool   // is said
		why   string // behind the step; "" is missing
	}{
		{"450 4.3.2 come\r\n", true, true, ": 450 4.3.2 come"},
		{"421-4.3.2 busy\r\n421 4.3.2 closing\r\n", true, false, ": 421 4.3.2 busy / 4.3.2 closing"},
		{"554-5.3.2 never\r\n554 5.3.2 \xffever\r\n", false, true, `: 554 5.3.2 never / 5.3.2 \xFFever`},
		{"354 go on\r\n", false, true, ": 354 go on"},
		{"SSH-2.0-OpenSSH\r\n", false, false, ": not an SMTP reply: SSH-2.0-OpenSSH"},
		{"250-a\r\n251 b\r\n", false, false, ": a reply begins with code 250 and goes on with 251"},
		{shut, false, false, ": the server has closed the connection"},
		{silence, false, false, ""},
	}
	for _, step := range steps {
		for _, fate := range fates {
			t.Run(step.name+"/"+strings.Fields(fate.reply)[0], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					s := &strict{replies: map[string][]string{step.verb: {fate.reply}}}
					if step.verb == "EHLO" {
						s.replies["HELO"] = s.replies["EHLO"] // refused too
					}
					o := s.visit(t, step.settings)
					require.False(t, o.good)
					require.Equal(t, fate.soft, o.soft)
					name := step.name
					if name == "EHLO" && fate.reply[0] == '5' {
						name = "HELO"
					}
					if fate.why != "" {
						require.Equal(t, name+fate.why, o.why)
					} else {
						require.Equal(t, step.missing, o.why[:len(step.missing)])
						require.Equal(t, 10*time.Second, time.Since(began))
					}
					said := len(s.commands) > 0 && s.commands[len(s.commands)-1] == "QUIT"
					require.Equal(t, fate.quit, said)
					if fate.quit || fate.soft {
						require.Empty(t, s.faults)
						require.True(t, s.closed, "the server closes first")
					}
				})
			})
		}
	}
}

// Some servers go on after 421. Fails if part does not say QUIT to them.
func TestServerStaysAfter421(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &strict{stays: true, replies: map[string][]string{"EHLO": {"421 4.3.0 not now\r\n"}}}
		o := s.visit(t, Settings{})
		require.Equal(t, outcome{soft: true, why: "EHLO: 421 4.3.0 not now"}, o)
		require.Empty(t, s.faults)
		require.Equal(t, []string{"EHLO lb.example.com", "QUIT"}, s.commands)
		require.True(t, s.closed)
	})
}

// The goodbye is not part of the verdict, and has a bound of its own. Fails
// without the deadline in part.
func TestNoGoodbye(t *testing.T) {
	for _, quit := range []string{silence, shut} {
		t.Run(quit, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s := &strict{replies: map[string][]string{"QUIT": {quit}}}
				require.True(t, s.visit(t, Settings{}).good)
				require.LessOrEqual(t, time.Since(began), farewell+time.Second)
			})
		})
	}
}

// A server that says a byte a second is never silent, and still takes no longer
// than the probe has. Fails if the time-out is one of each read.
func TestDripFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		drip := strings.Repeat("220-x\r\n", 50) + "220 x\r\n"
		s := &strict{gap: time.Second, replies: map[string][]string{"": {drip}}}
		o := s.visit(t, Settings{Timeout: 7 * time.Second})
		require.Equal(t, outcome{why: "no greeting in 7s"}, o)
		require.Equal(t, 7*time.Second, time.Since(began))
	})
}

// A server that floods us is held to the bounds of package smtp.
func TestFlood(t *testing.T) {
	for _, tt := range []struct{ name, reply, why string }{
		{"long line", "220 " + strings.Repeat("x", 5000) + "\r\n", "longer than 1000 bytes"},
		{"many lines", strings.Repeat("220-x\r\n", 200), "more than 100 lines"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &strict{gap: time.Millisecond, replies: map[string][]string{"": {tt.reply}}}
				o := s.visit(t, Settings{})
				require.False(t, o.good || o.soft)
				require.Contains(t, o.why, tt.why)
			})
		})
	}
}
