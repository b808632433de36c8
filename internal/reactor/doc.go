// Package reactor is an event loop on epoll, and the kernel calls it is made
// of.
//
// A Loop owns one epoll instance and runs on one goroutine. Descriptors are
// registered once, edge-triggered (listeners level-triggered), under a Token:
// a slot index with a generation, never a bare descriptor and never a pointer,
// so an event that outlived its descriptor finds a newer generation and is
// dropped. Whoever embeds a Loop implements Handler; every Handler method runs
// on the loop's goroutine, and so may everything of a Loop but Post and Stop,
// which any goroutine may call.
//
// The package knows nothing of sessions, servers or mail. Kernel calls come
// back as syscall.Errno values that callers compare directly; none of them
// allocates. Calls that cannot block go past the Go scheduler (RawSyscall);
// the one that waits goes through it.
package reactor
