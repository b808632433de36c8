package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Global directives stand on the command line: -g "daemon on; pid /run/x;".
// They are in nginx's syntax whatever that of the file is, since start-up files
// have them so, and belong to the main context.

const commandLine = "command line"

// globalShapes tells for each directive that -g knows how its arguments make the
// value that the main table wants.
var globalShapes = map[string]struct {
	most  int // arguments; 1 is the least
	value func(args []string) any
}{
	"daemon":                  {1, onOff},
	"env":                     {1, word},
	"error_log":               {2, nil}, // a table; see globalNode
	"master_process":          {1, onOff},
	"pid":                     {1, word},
	"stop_timeout":            {1, word},
	"user":                    {2, func(args []string) any { return strings.Join(args, ":") }},
	"worker_processes":        {1, numberOrWord},
	"worker_rlimit_nofile":    {1, numberOrWord},
	"worker_shutdown_timeout": {1, word},
	"working_directory":       {1, word},
}

func word(args []string) any { return args[0] }

func onOff(args []string) any {
	switch args[0] {
	case "on":
		return true
	case "off":
		return false
	}
	return nil
}

func numberOrWord(args []string) any {
	if i, err := strconv.ParseInt(args[0], 10, 64); err == nil {
		return i
	}
	return args[0]
}

// setGlobal reads the directives of the command line. Errors are in nginx's
// words.
func (r *reader) setGlobal(text string) error {
	for len(strings.TrimSpace(text)) > 0 {
		var args []string
		var err error
		if args, text, err = cutDirective(text); err != nil {
			return err
		}
		n, err := globalNode(args[0], args[1:])
		if err != nil {
			return err
		}
		switch i := slices.IndexFunc(r.global, func(g *node) bool { return g.name == n.name }); {
		case n.name == "env" && i >= 0: // the only one that may be repeated
			r.global[i].kids = append(r.global[i].kids, n.kids...)
		case i >= 0:
			return fmt.Errorf("%q directive is duplicate in %s", n.name, commandLine)
		default:
			r.global = append(r.global, n)
		}
	}
	return nil
}

// globalNode is the node that a directive would be in a TOML file.
func globalNode(name string, args []string) (*node, error) {
	shape, ok := globalShapes[name]
	if !ok {
		return nil, fmt.Errorf("unknown directive %q in %s", name, commandLine)
	}
	if len(args) < 1 || len(args) > shape.most {
		return nil, fmt.Errorf("invalid number of arguments in %q directive in %s", name, commandLine)
	}
	leaf := func(name string, value any) *node {
		return &node{name: name, nameAt: Position{File: commandLine}, at: Position{File: commandLine}, value: value}
	}
	n := leaf(name, nil)
	switch name {
	case "error_log":
		n.kind, n.kids = table, []*node{leaf("path", args[0])}
		if len(args) > 1 {
			n.kids = append(n.kids, leaf("level", args[1]))
		}
	case "env":
		n.kind, n.kids = array, []*node{leaf(name, args[0])}
	default:
		if n.value = shape.value(args); n.value == nil {
			return nil, fmt.Errorf(`invalid value %q in %q directive, it must be "on" or "off" in %s`, args[0], name, commandLine)
		}
	}
	return n, nil
}

// cutDirective cuts the first directive off text, with its name as the first of
// its words, which may be quoted.
func cutDirective(text string) (words []string, rest string, err error) {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return nil, "", fmt.Errorf(`unexpected end of parameter, expecting ";" in %s`, commandLine)
		}
		switch c := text[0]; c {
		case ';':
			if len(words) == 0 {
				return nil, "", fmt.Errorf("unexpected %q in %s", ";", commandLine)
			}
			return words, text[1:], nil
		case '}':
			return nil, "", fmt.Errorf("unexpected %q in %s", "}", commandLine)
		case '{':
			return nil, "", fmt.Errorf("block directives are not supported in -g option in %s", commandLine)
		case '"', '\'':
			word, after, closed := strings.Cut(text[1:], string(c))
			if !closed {
				return nil, "", fmt.Errorf(`unexpected end of parameter, expecting ";" in %s`, commandLine)
			}
			words, text = append(words, word), after
		default:
			end := strings.IndexAny(text, " \t\r\n;{")
			if end < 0 {
				end = len(text)
			}
			words, text = append(words, text[:end]), text[end:]
		}
	}
}

// withGlobal is the main file's table with the directives of the command line
// added. A file may not repeat them, as in nginx.
func (r *reader) withGlobal(root *node) *node {
	if len(r.global) == 0 {
		return root
	}
	merged := *root
	for _, g := range r.global {
		again := slices.IndexFunc(root.kids, func(kid *node) bool { return kid.name == g.name })
		switch {
		case again >= 0 && g.name != "env":
			r.problem(root.kids[again].nameAt, "%q directive is duplicate: -g has it already", g.name)
		case g.name == "master_process": // one process is both
		default:
			merged.kids = append(slices.Clip(merged.kids), g)
		}
	}
	return &merged
}
