package stream
import ("encoding/binary";"testing";"time";"net";"smtplb/internal/smtptest";"os")
func TestTmpBulk(t *testing.T) {
	for _, link := range links {
		var b book
		server := smtptest.Serve(t, listen(t, link.server), b.serve)
		g := newRig(t, []string{address(link.server, server.Addr())}, func(p *plan) {
			if link.client == "unix" { p.listen = "unix:" + t.TempDir() + "/port" }
			if os.Getenv("COPY") != "" { p.prepare = func(w *worker) { w.loop.Pipes.Limit = 0 } }
		})
		for range 8 {
			begin := time.Now()
			if err := b.client(g, 50<<20, 64<<10); err != nil { t.Error(err) }
			t.Log(link, "through", time.Since(begin))
		}
	}
	var b book
	server := smtptest.Serve(t, listen(t, "tcp"), b.serve)
	for range 8 {
		begin := time.Now()
		c, _ := net.Dial("tcp", server.Addr())
		h := header{5, 50<<20, 64<<10}
		_ = h
		bw(c, h)
		converse(c, 50<<20, 64<<10, 5)
		c.Close()
		t.Log("direct", time.Since(begin))
	}
}
func bw(c net.Conn, h header) { binary.Write(c, binary.BigEndian, h) }
