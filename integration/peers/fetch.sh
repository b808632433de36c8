#!/usr/bin/env bash
# Fetches the real peers of the tests (Postfix, Exim, swaks, nginx, HAProxy) as
# Debian packages and unpacks them under build/peers. Nothing is installed: the
# mail system of the machine stays as it is, whichever one it has. The versions
# are those of the machine's Debian; apt checks the signatures.
#
#   root/   the packages, and whatever they need that this machine lacks
#   bin/    one wrapper per tool, which finds its libraries in root/
#   stamp   what was fetched by which version of this script, and where to
#
# A second run with the same stamp does nothing; runs at the same time wait for
# each other.
set -Eeuo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

mailers=(postfix exim4-daemon-light) # of which a machine has one
packages=(swaks libnet-ssleay-perl nginx libnginx-mod-stream haproxy)
# Of these the tests start the binary itself or a daemon of Postfix's master.
tools=(
    swaks:usr/bin/swaks
    smtp-source:usr/sbin/smtp-source
    smtp-sink:usr/sbin/smtp-sink
    postfix-master:usr/lib/postfix/sbin/master
    exim:usr/sbin/exim4
    nginx:usr/sbin/nginx
    haproxy:usr/sbin/haproxy
)

die() {
    echo "fetch peers: $*" >&2
    exit 1
}
trap 'die "line $LINENO: $BASH_COMMAND"' ERR

command -v apt-get >/dev/null ||
    die "no apt-get here: the peers come from Debian's packages, run the tests on Debian 12 or newer"
dir=$(cd "$(dirname "$0")/../.." && pwd)/build/peers
mkdir -p "$dir"

exec 9>"$dir/lock"
flock 9

# The wrappers name the directory, and which libraries are missing depends on the release.
want="$(sha256sum <"$0") $dir $(. /etc/os-release && echo "$ID $VERSION_ID") $(dpkg --print-architecture)"
[ "$(cat "$dir/stamp" 2>/dev/null || true)" != "$want" ] || exit 0

# The directory is written afresh, so that nothing of an older set stays in it.
rm -rf "$dir/stamp" "$dir/root" "$dir/bin" "$dir/debs"
mkdir "$dir/root" "$dir/bin" "$dir/debs"

# As root, apt would download as a user of its own who may not enter build/.
apt=(apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=3)

# needed prints the packages and whatever apt would install for them here. It
# only simulates: apt may well plan to remove another mail server for Postfix.
# The C library stays the machine's, whose dynamic linker must match it.
needed() {
    local mailer plan
    for mailer in "${mailers[@]}"; do
        plan=$("${apt[@]}" -s --no-install-recommends install "$mailer" "${packages[@]}") || return
        printf '%s\n' "$mailer" "${packages[@]}"
        awk '$1 == "Inst" && $2 != "libc6" { print $2 }' <<<"$plan"
    done
}

download() {
    local names
    names=$(needed) || return
    (cd "$dir/debs" && sort -u <<<"$names" | xargs "${apt[@]}" download)
}

# No package lists, or lists older than the archive: both are cured by an update.
if ! download 2>/dev/null; then
    echo "fetch peers: updating the package lists" >&2
    "${apt[@]}" update >&2 || die "apt-get update did not work: run it by hand, as root, then 'make peers'"
    download || die "apt-get could not download the packages: see /etc/apt/sources.list*," \
        "which must hold Debian's main archive, then run 'make peers'"
fi

for deb in "$dir"/debs/*.deb; do
    dpkg -x "$deb" "$dir/root"
done
# Exim comes with a set-uid bit, which is for those who are not root.
chmod u-s "$dir/root/usr/sbin/exim4"

# join_dirs prints those of its arguments that are directories, with colons.
join_dirs() {
    local out='' d
    for d in "$@"; do
        [ -d "$d" ] && out=$out${out:+:}$d
    done
    echo "$out"
}
libraries=$(join_dirs "$dir"/root/usr/lib/postfix "$dir"/root/{usr/,}lib/*-linux-gnu)
modules=$(join_dirs "$dir"/root/usr/share/perl5 "$dir"/root/usr/share/perl/5.* \
    "$dir"/root/usr/lib/*-linux-gnu/perl5/5.* "$dir"/root/usr/lib/*-linux-gnu/perl/5.*)

for tool in "${tools[@]}"; do
    wrapper=$dir/bin/${tool%%:*}
    cat >"$wrapper" <<END
#!/bin/sh
export LD_LIBRARY_PATH='$libraries' PERL5LIB='$modules'
exec '$dir/root/${tool#*:}' "\$@"
END
    chmod 755 "$wrapper"
done

# A library that is missing would otherwise show only as a daemon that dies.
while read -r binary; do
    # ldd fails on the scripts among them.
    missing=$({ LD_LIBRARY_PATH=$libraries ldd "$binary" 2>&1 || true; } | awk '/not found/ { print $1 }')
    [ -z "$missing" ] || die "$binary lacks ${missing//$'\n'/ } (add its package to this script)"
done < <(find "$dir"/root/usr/sbin/{exim4,nginx,haproxy,smtp-sink,smtp-source} "$dir"/root/usr/lib/postfix/sbin \
    -type f -perm /111)
"$dir/bin/swaks" --version >/dev/null || die "swaks does not start (see above)"

rm -rf "$dir/debs"
echo "$want" >"$dir/stamp"
echo "fetch peers: $(du -sh "$dir/root" | cut -f1) in $dir"
