// Package nginx reads the syntax of nginx's configuration files: words,
// directives, blocks and includes. What a directive means is not its business.
//
// It follows nginx to the byte (ngx_conf_read_token and ngx_conf_parse of
// core/ngx_conf_file.c), with nginx's messages and line numbers. nginx obeys
// each directive as soon as it has read it; so that a caller can report what
// nginx would have found first, Parse returns what it read before an error.
//
// Beyond nginx, files, bytes, words and nesting are bounded, and whatever the
// input costs time and memory in proportion to its size at most.
package nginx

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// A Directive is a name, its arguments, and a block if it has one.
type Directive struct {
	Name  string
	Args  []string
	Block []Directive // in order; what an include holds stands in its place
	File  string      // as given to Parse, or as an include names it
	Line  int         // of the ";" or "{" behind the arguments: the one nginx reports
	End   int         // of the "}"; 0 if there is no block, or the file ends within

	HasBlock bool // even if it is empty
}

// A Tree is what a file and its includes say.
type Tree struct {
	Directives []Directive
	Files      []File // as read; a file that is included twice is there twice
}

// A File is one file as it was read.
type File struct {
	Path string
	Text string
}

// Options are choices of a reader.
type Options struct {
	// Opaque are blocks of the main context whose content must be well formed,
	// but is not wanted: it stays out of the tree, and what it includes unread.
	Opaque []string
}

// An Error is the reason why a configuration could not be read to its end.
type Error struct {
	File    string // "" if it is not about a place
	Line    int
	Message string
	Err     error // the system's, if it is one
}

func (e *Error) Unwrap() error { return e.Err }

// Error formats e as nginx does (ngx_conf_log_error).
func (e *Error) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return e.Message + " in " + e.File
	}
	return fmt.Sprintf("%s in %s:%d", e.Message, e.File, e.Line)
}

// A systemError is a system call on a file that failed.
type systemError struct {
	call, path string
	err        error
}

func (e *systemError) Unwrap() error { return e.err }

// Error formats e as nginx does: `open() "/etc/x" failed (2: No such file or
// directory)`.
func (e *systemError) Error() string {
	reason := e.err.Error()
	if errno, ok := errors.AsType[syscall.Errno](e.err); ok {
		text := errno.Error() // the C library begins it with a capital
		reason = fmt.Sprintf("%d: %s", int(errno), strings.ToUpper(text[:1])+text[1:])
	}
	return fmt.Sprintf("%s() %q failed (%s)", e.call, e.path, reason)
}

// Format writes directives so that reading them gives the same ones.
func Format(directives []Directive) string {
	var b strings.Builder
	format(&b, directives, "")
	return b.String()
}

func format(b *strings.Builder, directives []Directive, indent string) {
	for _, d := range directives {
		b.WriteString(indent + Quote(d.Name))
		for _, a := range d.Args {
			b.WriteString(" " + Quote(a))
		}
		if !d.HasBlock {
			b.WriteString(";\n")
			continue
		}
		b.WriteString(" {\n")
		format(b, d.Block, indent+"    ")
		b.WriteString(indent + "}\n")
	}
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// Quote writes a word so that it is read as that word, with quotes if it needs
// them.
func Quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\r\n;{}\"'\\#$()") {
		return word
	}
	return `"` + quoter.Replace(word) + `"`
}
