package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// More bounds of one configuration, all its files together.
const (
	maxBytes   = 16 << 20
	maxLines   = 500_000 // the library splits a text into lines to report a mistake
	maxFiles   = 1024
	maxInclude = 8 // files deep, below the main one
)

var (
	errTooLarge = fmt.Errorf("too large: a configuration has at most %d MiB in all its files", maxBytes>>20)
	errTooLong  = fmt.Errorf("too long: a configuration has at most %d lines in all its files", maxLines)
)

// A source is a file that is still to be read.
type source struct {
	path  string
	depth int           // includes on the way here; 0 is the main file
	at    Position      // of the include that asked for it
	via   []fs.FileInfo // the files on the way here, the main one first
}

// budget is what a configuration may still use of its bounds.
type budget struct {
	bytes, lines, files, nodes int
}

// open reads the file of src, which must be a regular one: a configuration is
// read again at every reload, so a pipe cannot hold one.
func (b *budget) open(src source) (text string, info fs.FileInfo, err error) {
	// Not to hang on a named pipe that nobody writes to.
	f, err := os.OpenFile(src.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", nil, advise(err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return "", nil, advise(err)
	}
	if b.files--; b.files < 0 {
		return "", nil, fmt.Errorf("too many files in one configuration: more than %d", maxFiles)
	}
	switch {
	case info.IsDir():
		return "", nil, errors.New(`is a directory; name the files in it, as in "conf.d/*.toml"`)
	case !info.Mode().IsRegular():
		return "", nil, errors.New("is not a regular file; a configuration must be readable again at reload")
	case info.Size() > int64(b.bytes):
		return "", nil, errTooLarge
	}
	if slices.ContainsFunc(src.via, func(i fs.FileInfo) bool { return os.SameFile(i, info) }) {
		return "", nil, errors.New("includes itself, directly or through another file")
	}
	// The file may grow while we read; what it had when opened is its text.
	var sb strings.Builder
	sb.Grow(int(info.Size()))
	if _, err = io.Copy(&sb, io.LimitReader(f, info.Size())); err != nil {
		return "", nil, advise(err)
	}
	return sb.String(), info, nil
}

// advise words an error of the file system for whoever must mend it. The path
// is left out: it stands in front of the message.
func advise(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file; check the path")
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied; let user id %d read the file and enter its directories", os.Geteuid())
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return err
}

// parse turns a text into the tree of what it says. Bounds are checked before
// the TOML library reads the text, so that nothing it does can exceed them.
func (b *budget) parse(file, text string) (*node, *ParseError) {
	// Editors of other systems put a mark at the beginning, which is no text.
	text = strings.TrimPrefix(text, "\ufeff")
	b.bytes -= len(text)
	b.lines -= strings.Count(text, "\n")
	switch at := notText(text); {
	case b.bytes < 0:
		return nil, &ParseError{Position{File: file}, errTooLarge.Error()}
	case b.lines < 0:
		return nil, &ParseError{Position{File: file}, errTooLong.Error()}
	case at >= 0:
		return nil, &ParseError{positionOf(file, text, at), "not a text file; a configuration is UTF-8 text without zero bytes"}
	}
	root, at, stuck := scan(file, text, &b.nodes)
	if stuck != nil && !errors.Is(stuck, errNotTOML) {
		return nil, &ParseError{at, stuck.Error()}
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		return nil, syntaxError(file, text, err)
	}
	if stuck != nil || !root.fill(values) {
		return nil, &ParseError{at, "BUG: valid TOML, but its places were not found; please report this file"}
	}
	return root, nil
}

// notText returns the offset of the first byte that no text file has, or -1.
func notText(text string) int {
	for i, r := range text {
		if r == 0 || r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return -1
}

// syntaxError words what the library says about a text that is not TOML.
func syntaxError(file, text string, err error) *ParseError {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return &ParseError{Position{File: file}, err.Error()}
	}
	// Its line and column go astray at the ends of lines; its offset does not.
	at := positionOf(file, text, min(max(pe.Position.Start, 0), len(text)))
	message := "TOML syntax: " + strings.TrimSuffix(pe.Message, ".")
	unquoted := func(beginning string) bool { return strings.HasPrefix(pe.Message, beginning) }
	if unquoted("expected value but found") || unquoted("expected a top-level item to end") {
		message += `; words, times and sizes need quotes, as in "10s"`
	}
	return &ParseError{at, message}
}

// positionOf returns the place of an offset of text.
func positionOf(file, text string, offset int) Position {
	before := text[:offset]
	return Position{
		File: file,
		Line: strings.Count(before, "\n") + 1,
		Col:  offset - strings.LastIndexByte(before, '\n'),
	}
}

// expand finds the files that a pattern in the file from stands for. Names are
// relative to that file's directory. As in glob(3), a "*" at the beginning of a
// name does not stand for hidden files, since editors leave theirs there.
func expand(from, pattern string) ([]string, error) {
	const special = `*?[`
	isGlob := strings.ContainsAny(pattern, special)
	if !filepath.IsAbs(pattern) {
		dir := filepath.Dir(from)
		if isGlob {
			dir = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
		}
		pattern = filepath.Join(dir, pattern)
	}
	if !isGlob {
		return []string{pattern}, nil
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, errors.New("a bracket in the pattern is not closed")
	}
	if strings.HasPrefix(filepath.Base(pattern), ".") {
		return paths, nil
	}
	return slices.DeleteFunc(paths, func(p string) bool { return filepath.Base(p)[0] == '.' }), nil
}
