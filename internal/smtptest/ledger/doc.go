// Package ledger counts mail: what a client was told and what servers stored,
// reconciled message by message.
//
// A Client is a load generator whose every message carries an id that no other
// message has, in the header X-Ledger-Id; it writes down how far each got. A
// Server writes down the ids of the messages that it answered with 250.
// Reconcile holds the two against each other:
//
//	a, b := ledger.NewServer(t, smtptest.Script{Name: "a"}), ledger.NewServer(t, smtptest.Script{Name: "b"})
//	c := &ledger.Client{Addr: balancer, Sessions: 1000, Concurrency: 50}
//	c.Run(ctx)
//	require.NoError(t, ledger.Reconcile(c, a, b).Err())
//
// What a foreign server stored takes part as a List of ids.
//
// The promise that is checked is RFC 5321's: once the client has read 250 after
// the final dot, the message is some server's. So a message is lost if the
// client read 250 and no server stored it; one that is stored although the
// client never read 250 is unconfirmed, which a broken connection explains and
// which makes a real client send it again (RFC 1047).
package ledger
