package healthcheck

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"smtplb/internal/smtp"
)

// logOf is where lines about a target go.
func (c *Checker) logOf(t *target) *zap.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return c.log
}

// logResult writes a bad result; a change of state is for the Reporter's side
// to write.
func (c *Checker) logResult(t *target, was State, r Result) {
	if r.Good {
		return
	}
	// [info]; see package errorlog.
	entry := c.logOf(t).Check(zapcore.DebugLevel, "probe failed")
	if entry == nil {
		return
	}
	count := zap.Skip()
	if was == Up {
		count = zap.String("count", fmt.Sprintf("%d of %d", t.bad, t.Fall))
	}
	entry.Write(zap.String("upstream", t.Upstream), zap.String("peer", t.Name),
		zap.String("reason", r.Why), count)
}

// complain writes why a probe counts for nothing, once a minute at most.
func (c *Checker) complain(k *check, o outcome, now time.Time) {
	if !c.complained.IsZero() && now.Sub(c.complained) < time.Minute {
		return
	}
	c.complained = now
	t := k.targets[0]
	c.logOf(t).Warn("probe counts for nothing, repeating it", zap.String("upstream", t.Upstream),
		zap.String("peer", t.Name), zap.String("reason", o.fault))
}

// lookAt warns of a certificate that ends soon, or has ended.
func (c *Checker) lookAt(k *check, cert *x509.Certificate, now time.Time) {
	t := slices.MaxFunc(k.targets, func(a, b *target) int { return cmp.Compare(a.CertWarning, b.CertWarning) })
	if cert == nil || t.CertWarning == 0 || cert.NotAfter.After(now.Add(t.CertWarning)) {
		return
	}
	if !k.warned.IsZero() && now.Sub(k.warned) < 24*time.Hour {
		return
	}
	k.warned = now
	message := "certificate ends soon"
	if cert.NotAfter.Before(now) {
		message = "certificate has ended"
	}
	c.logOf(t).Warn(message, zap.String("upstream", t.Upstream), zap.String("peer", t.Name),
		zap.String("subject", smtp.Printable([]byte(cert.Subject.String()), smtp.LogLimit)),
		zap.String("not_after", cert.NotAfter.UTC().Format(time.RFC3339)))
}
