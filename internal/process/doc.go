// Package process is what concerns the process as a whole rather than its
// sessions: the pid file, and how many descriptors and pipes it may use.
//
// Its functions are called by main and by a reload, one at a time.
package process
