package process

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
)

// Identity is whom a process may become.
type Identity struct {
	UID    int
	GID    int
	Groups []int // all of them, GID among them
}

// LookupIdentity finds a user, and the group to have instead of the user's own
// unless that is empty. Either may be a number that has no name, as in
// containers without a user database; such a user needs a group.
func LookupIdentity(name, group string) (Identity, error) {
	var id Identity
	u, err := user.Lookup(name)
	switch {
	case err == nil:
		if id.UID, id.GID, id.Groups, err = numbers(u); err != nil {
			return Identity{}, err
		}
	case unknown(err) && isNumber(name) && group != "":
		id.UID, _ = strconv.Atoi(name)
	default:
		return Identity{}, fmt.Errorf("getpwnam(%q) failed: %w", name, err)
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		switch {
		case err == nil:
			id.GID, err = strconv.Atoi(g.Gid)
		case unknown(err) && isNumber(group):
			id.GID, err = strconv.Atoi(group)
		}
		if err != nil {
			return Identity{}, fmt.Errorf("getgrnam(%q) failed: %w", group, err)
		}
	}
	if !slices.Contains(id.Groups, id.GID) {
		id.Groups = append(id.Groups, id.GID)
	}
	return id, nil
}

func numbers(u *user.User) (uid, gid int, groups []int, err error) {
	texts, err := u.GroupIds()
	if err != nil {
		return 0, 0, nil, fmt.Errorf("read the groups of user %q: %w", u.Username, err)
	}
	groups = make([]int, len(texts))
	for i, text := range texts {
		if groups[i], err = strconv.Atoi(text); err != nil {
			return 0, 0, nil, err
		}
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, groups, err
}

// unknown tells whether there is no such user or group, as opposed to a
// database that cannot be read.
func unknown(err error) bool {
	_, noUser := errors.AsType[user.UnknownUserError](err)
	_, noGroup := errors.AsType[user.UnknownGroupError](err)
	return noUser || noGroup
}

// isNumber tells whether text is an id; -1, which setuid takes for "leave it",
// is none.
func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}
