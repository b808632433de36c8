package conf

import (
	"fmt"
	"path/filepath"
	"slices"
)

// Load reads the configuration file at path, and what it includes: TOML if its
// name ends in ".toml", else the language of nginx. It returns either a complete
// Config or Problems. Any goroutine may call it; it keeps nothing.
func Load(path string) (*Config, error) { return LoadWith(path, "") }

// LoadWith is Load with global directives from the command line (-g).
func LoadWith(path, global string) (*Config, error) {
	if filepath.Ext(path) != ".toml" {
		return loadNginx(path, global)
	}
	r := newReader()
	if err := r.setGlobal(global); err != nil {
		return nil, err
	}
	r.pending = []source{{path: path}}
	return r.finish()
}

// Parse reads a configuration in TOML that is held in memory. The name stands for it
// in messages, and what it includes is sought in that name's directory.
func Parse(name string, data []byte) (*Config, error) { return ParseWith(name, data, "") }

// ParseWith is Parse with global directives from the command line (-g).
func ParseWith(name string, data []byte, global string) (*Config, error) {
	r := newReader()
	if err := r.setGlobal(global); err != nil {
		return nil, err
	}
	r.read(source{path: name}, string(data))
	return r.finish()
}

// A reader fills a Config from TOML files. Whatever is wrong is noted and
// reading goes on, so that one run shows every problem.
type reader struct {
	cfg       Config
	budget    budget
	pending   []source          // files still to be read
	current   source            // the file being read
	broken    bool              // some file could not be read
	listening int               // addresses to listen on so far
	global    []*node           // directives of the command line
	formatAt  Position          // of the format that an error_log names
	homes     map[string]string // where each key may stand
	problems  Problems
}

func newReader() *reader {
	return &reader{
		budget: budget{bytes: maxBytes, lines: maxLines, files: maxFiles, nodes: maxNodes},
		homes:  homes(),
	}
}

// finish reads what is pending, checks the whole, and returns it or Problems.
func (r *reader) finish() (*Config, error) {
	for len(r.pending) > 0 && !r.full() {
		src := r.pending[0]
		r.pending = r.pending[1:]
		text, info, err := r.budget.open(src)
		switch {
		case err == nil:
			src.via = append(slices.Clip(src.via), info)
			r.read(src, text)
		case src.depth > 0:
			r.reject(src.at, "include %s: %v", src.path, err)
		default:
			r.reject(Position{File: src.path}, "%v", err)
		}
	}
	// What an unread file did not get to say would look like mistakes of others.
	if !r.broken {
		r.problems = append(r.problems, validate(&r.cfg)...)
	}
	if len(r.problems) > 0 {
		return nil, r.problems.sorted(r.cfg.Files)
	}
	return &r.cfg, nil
}

// read reads the text of src.
func (r *reader) read(src source, text string) {
	r.cfg.Files = append(r.cfg.Files, src.path)
	r.current = src
	root, bad := r.budget.parse(src.path, text)
	switch {
	case bad != nil:
		r.reject(bad.Position, "%s", bad.Message)
	case src.depth == 0:
		mainTable.read(r, &r.cfg, r.withGlobal(root))
	default:
		includedTable.read(r, &r.cfg, root)
	}
}

// problem notes what is wrong at a place.
func (r *reader) problem(at Position, format string, args ...any) {
	if !r.full() {
		r.problems = append(r.problems, ParseError{at, fmt.Sprintf(format, args...)})
	}
}

// full tells whether there are so many problems that more are pointless.
func (r *reader) full() bool { return len(r.problems) > maxProblems }

// reject notes why a whole file, and so the whole configuration, is not known.
func (r *reader) reject(at Position, format string, args ...any) {
	r.broken = true
	r.problem(at, format, args...)
}

// warn notes something accepted but doubtful.
func (r *reader) warn(at Position, format string, args ...any) {
	r.cfg.Warnings = append(r.cfg.Warnings, ParseError{at, fmt.Sprintf(format, args...)}.Error())
}
