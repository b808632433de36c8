package process

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Files are what a process opens by name while it runs.
type Files struct {
	Read   []string // the configuration
	Append []string // logs
	Create []string // logs that are made anew when they have been renamed
}

// Refused tells what of files the kernel will not let id open, a sentence for
// each. It needs root, and is for before Become.
func (id Identity) Refused(files Files) (refused []string, err error) {
	onSpareThread(func() {
		if err = id.takeThread(); err == nil {
			refused = files.refused()
		}
	})
	return refused, err
}

// onSpareThread runs f on a thread that ends with it, so that f may spoil it.
func onSpareThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		onSpareThread(f) // a process's first thread cannot end before it
		runtime.UnlockOSThread()
	}()
	<-done
}

func (f Files) refused() []string {
	var list []string
	try := func(path, consequence string, err error) {
		if err == nil {
			return
		}
		text := fmt.Sprintf("%s: %v: %s", path, err, consequence)
		if !slices.Contains(list, text) { // logs share directories
			list = append(list, text)
		}
	}
	for _, path := range f.Read {
		try(path, "a reload cannot read it", openAs(path, unix.O_RDONLY))
	}
	for _, path := range f.Append {
		err := openAs(path, unix.O_WRONLY|unix.O_APPEND)
		if err == unix.ENOENT {
			err = nil // made by root at the start
		}
		try(path, "the log cannot be opened again (SIGUSR1)", err)
	}
	for _, path := range f.Create {
		dir := filepath.Dir(path)
		try(dir, "a log that was renamed is written on unless whoever renames it also makes the new one (logrotate: create)",
			unix.Access(dir, unix.W_OK|unix.X_OK))
	}
	return list
}

func openAs(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}
