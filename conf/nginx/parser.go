package nginx

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Bounds of one configuration, all its files together.
const (
	maxBytes   = 16 << 20
	maxWords   = 100_000 // ten thousand servers with all their parameters fit
	maxFiles   = 1024
	maxInclude = 8  // files deep, below the main one
	maxBlocks  = 32 // blocks deep
)

// Parse reads the file at path and what it includes. Names in includes are
// relative to the directory of path, wherever they stand. The tree is never
// nil: with an error it holds what was read before.
func Parse(path string, o Options) (*Tree, *Error) {
	p := newParser(filepath.Dir(path), o)
	err := p.file(path, &p.tree.Directives, nil)
	return &p.tree, err
}

// ParseText reads a configuration held in memory; name stands for it in messages,
// and its includes are relative to the directory of that name.
func ParseText(name, text string, o Options) (*Tree, *Error) {
	p := newParser(filepath.Dir(name), o)
	err := p.text(name, text, &p.tree.Directives)
	return &p.tree, err
}

// CommandLine stands for the file of directives that are in none.
const CommandLine = "command line"

// ParseParameter reads the directives of nginx's -g option. They have no lines,
// and no blocks; what they include is relative to dir.
func ParseParameter(text, dir string) (*Tree, *Error) {
	p := newParser(dir, Options{})
	err := p.block(&lexer{file: CommandLine, text: text, words: &p.words}, &p.tree.Directives, false)
	return &p.tree, err
}

type parser struct {
	Options
	dir   string // that names in includes are relative to
	tree  Tree
	bytes int // that may still be read
	words int // that may still be read
	depth int // of blocks

	skipping bool // inside an opaque block

	open []fs.FileInfo // the files being read, the main one first
}

func newParser(dir string, o Options) *parser {
	return &parser{Options: o, dir: dir, bytes: maxBytes, words: maxWords}
}

// file reads the file at path into to. The error that it cannot be opened is
// about the include that names it, or about no place.
func (p *parser) file(path string, to *[]Directive, from *lexer) *Error {
	text, info, err := p.read(path)
	if err != nil {
		e := &Error{Message: err.Error(), Err: err}
		if from != nil {
			e.File, e.Line = from.file, from.line
		}
		return e
	}
	p.open = append(p.open, info)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	return p.text(path, text, to)
}

func (p *parser) text(path, text string, to *[]Directive) *Error {
	p.tree.Files = append(p.tree.Files, File{path, text})
	l := &lexer{file: path, text: text, line: 1, words: &p.words}
	if p.bytes -= len(text); p.bytes < 0 {
		return l.fail("too large: a configuration has at most %d MiB in all its files", maxBytes>>20)
	}
	return p.block(l, to, false)
}

// block reads directives into to, up to the "}" of a block or the end of the
// file.
func (p *parser) block(l *lexer, to *[]Directive, inBlock bool) *Error {
	for {
		words, end, err := l.next()
		switch {
		case err != nil:
			return err
		case end == blockEnd && !inBlock:
			return l.fail(`unexpected "}"`)
		case end == endOfFile && inBlock:
			return l.fail(`unexpected end of file, expecting "}"`)
		case end == blockEnd || end == endOfFile:
			return nil
		}
		if l.file == CommandLine && end == blockStart {
			return l.fail("block directives are not supported in -g option")
		}
		d := Directive{Name: words[0], Args: words[1:], File: l.file, Line: l.line, HasBlock: end == blockStart}
		switch {
		case d.Name == "include":
			err = p.include(l, d, to)
		case d.HasBlock:
			err = p.nested(l, &d)
			fallthrough
		default:
			if !p.skipping {
				if len(*to) == cap(*to) { // append leaves more garbage behind
					*to = slices.Grow(*to, max(4, len(*to)))
				}
				*to = append(*to, d)
			}
		}
		if err != nil {
			return err
		}
	}
}

// nested reads the block of d.
func (p *parser) nested(l *lexer, d *Directive) *Error {
	if p.depth == maxBlocks {
		return l.fail("blocks are nested too deep: more than %d levels", maxBlocks)
	}
	outermost := p.depth == 0 && slices.Contains(p.Opaque, d.Name)
	if outermost {
		p.skipping = true
		words := p.words // what is not kept costs nothing
		defer func() { p.skipping, p.words = false, words }()
	}
	p.depth++
	defer func() { p.depth-- }()
	if err := p.block(l, &d.Block, true); err != nil {
		return err
	}
	d.End = l.line
	return nil
}

// include reads the files that d names, as if their text stood in its place; a
// block begins and ends in one file, though.
func (p *parser) include(l *lexer, d Directive, to *[]Directive) *Error {
	switch {
	case d.HasBlock:
		return l.fail(`directive "include" is not terminated by ";"`)
	case len(d.Args) != 1:
		return l.fail(`invalid number of arguments in "include" directive`)
	case p.skipping:
		return nil
	}
	pattern := d.Args[0]
	if !strings.HasPrefix(pattern, "/") {
		// Not cleaned: messages show the name that nginx would show.
		pattern = p.dir + "/" + pattern
	}
	paths := []string{pattern}
	if strings.ContainsAny(pattern, "*?[") {
		paths = expand(pattern)
	}
	for _, path := range paths {
		if len(p.open) > maxInclude {
			return l.fail("include %q: files are nested too deep: more than %d levels", path, maxInclude)
		}
		if err := p.file(path, to, l); err != nil {
			return err
		}
	}
	return nil
}

// expand returns the files that pattern stands for, as glob(3) does, in the
// order of their names. None is no mistake, and neither is a pattern that is
// malformed: nginx takes both for an empty directory.
func expand(pattern string) []string {
	paths, err := filepath.Glob(strings.ReplaceAll(pattern, "[!", "[^"))
	if err != nil {
		return nil
	}
	// As in glob(3), a pattern does not stand for hidden files unless it begins
	// with their dot, since editors leave theirs there.
	parts := strings.Split(filepath.Clean(pattern), "/")
	paths = slices.DeleteFunc(paths, func(path string) bool {
		for i, name := range strings.Split(filepath.Clean(path), "/") {
			if i < len(parts) && strings.HasPrefix(name, ".") && !strings.HasPrefix(parts[i], ".") {
				return true
			}
		}
		return false
	})
	slices.Sort(paths)
	return paths
}

// read returns the text of the file at path, which must be a regular one: a
// configuration is read again at every reload, so a pipe cannot hold one.
func (p *parser) read(path string) (text string, info fs.FileInfo, err error) {
	if len(p.tree.Files) == maxFiles {
		return "", nil, fmt.Errorf("include %q: too many files: a configuration has at most %d", path, maxFiles)
	}
	// Not to hang on a named pipe that nobody writes to.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", nil, &systemError{"open", path, err}
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", nil, &systemError{"fstat", path, err}
	}
	switch {
	case info.IsDir():
		return "", nil, &systemError{"pread", path, syscall.EISDIR}
	case !info.Mode().IsRegular():
		return "", nil, fmt.Errorf("%q is not a regular file; a configuration must be readable again at reload", path)
	case info.Size() > int64(p.bytes):
		return "", nil, fmt.Errorf("%q is too large: a configuration has at most %d MiB in all its files", path, maxBytes>>20)
	case slices.ContainsFunc(p.open, func(i fs.FileInfo) bool { return os.SameFile(i, info) }):
		return "", nil, fmt.Errorf("%q includes itself, directly or through another file", path)
	}
	// The file may grow while it is read; what it had when opened is its text.
	var b strings.Builder
	b.Grow(int(info.Size()))
	if _, err = io.Copy(&b, io.LimitReader(f, info.Size())); err != nil {
		return "", nil, &systemError{"pread", path, err}
	}
	return b.String(), info, nil
}
