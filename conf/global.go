package conf

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"smtplb/conf/nginx"
)

// Global directives stand on the command line: -g "daemon on; pid /run/x;".
// They are in nginx's syntax whatever that of the file is, since start-up files
// have them so, and belong to the main context.

const commandLine = nginx.CommandLine

// globalShapes tells for each directive that -g knows how its arguments make the
// value that the main table wants.
var globalShapes = map[string]struct {
	most  int // arguments; 1 is the least
	value func(args []string) any
}{
	"daemon":                  {1, onOff},
	"env":                     {1, word},
	"error_log":               {2, nil}, // a list of tables; see globalNode
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
	tree, bad := nginx.ParseParameter(text, ".")
	for _, d := range tree.Directives {
		n, err := globalNode(d.Name, d.Args)
		if err != nil {
			return err
		}
		switch i := slices.IndexFunc(r.global, func(g *node) bool { return g.name == n.name }); {
		case repeatable(n.name) && i >= 0:
			r.global[i].kids = append(r.global[i].kids, n.kids...)
		case i >= 0:
			return fmt.Errorf("%q directive is duplicate in %s", n.name, commandLine)
		default:
			r.global = append(r.global, n)
		}
	}
	if bad != nil {
		return bad
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
		log := leaf(name, nil)
		log.kind, log.kids = table, []*node{leaf("path", args[0])}
		if len(args) > 1 {
			log.kids = append(log.kids, leaf("level", args[1]))
		}
		n.kind, n.kids = array, []*node{log}
	case "env":
		n.kind, n.kids = array, []*node{leaf(name, args[0])}
	default:
		if n.value = shape.value(args); n.value == nil {
			return nil, fmt.Errorf(`invalid value %q in %q directive, it must be "on" or "off" in %s`, args[0], name, commandLine)
		}
	}
	return n, nil
}

// repeatable tells whether a directive adds to those of its name.
func repeatable(name string) bool { return name == "env" || name == "error_log" }

// withGlobal is the main file's table with the directives of the command line
// added. A file may not repeat most of them, as in nginx.
func (r *reader) withGlobal(root *node) *node {
	if len(r.global) == 0 {
		return root
	}
	merged := *root
	for _, g := range r.global {
		again := slices.IndexFunc(root.kids, func(kid *node) bool { return kid.name == g.name })
		switch {
		case again >= 0 && !repeatable(g.name):
			r.problem(root.kids[again].nameAt, "%q directive is duplicate: -g has it already", g.name)
		case g.name == "master_process": // one process is both
		default:
			merged.kids = append(slices.Clip(merged.kids), g)
		}
	}
	return &merged
}
