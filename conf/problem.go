package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"smtplb/conf/nginx"
)

// maxProblems bounds what one bad file can make us print. Nobody reads further,
// and a file with more is not a configuration.
const maxProblems = 1000

// String formats p as compilers do, "file:line:col", so that editors can jump
// to it. A place without a line is the file as a whole, one without a column is
// in an nginx.conf.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// ParseError is one problem of a configuration and its place.
type ParseError struct {
	Position Position
	Message  string
}

// Error puts the place before the message, or behind it as nginx does if it is
// in an nginx.conf. What is wrong with no place in particular has none.
func (e ParseError) Error() string {
	switch at := e.Position; {
	case at == Position{}:
		return e.Message
	case at.Line > 0 && at.Col == 0 || at.File == nginx.CommandLine:
		return e.Message + " in " + at.String()
	default:
		return at.String() + ": " + e.Message
	}
}

// Problems are all problems found in a configuration, one a line, in the order
// of the files read and of the places in them.
//
//nolint:errname // a plural noun reads better than ParseErrors where it is used
type Problems []ParseError

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders ps by place, where files is the order of the files read, and
// drops what is too much. Problems at one place keep their order.
func (ps Problems) sorted(files []string) Problems {
	order := make(map[string]int, len(files))
	for i, f := range files {
		if _, again := order[f]; !again {
			order[f] = i
		}
	}
	slices.SortStableFunc(ps, func(a, b ParseError) int {
		return cmp.Or(
			cmp.Compare(order[a.Position.File], order[b.Position.File]),
			cmp.Compare(a.Position.Line, b.Position.Line),
			cmp.Compare(a.Position.Col, b.Position.Col),
		)
	})
	if len(ps) > maxProblems {
		ps = append(ps[:maxProblems], ParseError{ps[maxProblems].Position, "too many problems; the rest is not shown"})
	}
	return ps
}

// closest returns the candidate that name is most likely a slip of the finger
// for, or "". A third of the letters may be wrong, but never all.
func closest(name string, candidates []string) string {
	best, least := "", min(max(1, len(name)/3), len(name)-1)+1
	for _, c := range candidates {
		if d := distance(name, c); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	// Three rows of the matrix: two letters back, one back, this one.
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(one[j+1]+1, row[j]+1, one[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], two[j-1]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}
