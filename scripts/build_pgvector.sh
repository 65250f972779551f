#!/usr/bin/env bash
# Builds pgvector, an extension of PostgreSQL, from Debian's source package and installs it for the
# installed PostgreSQL. For Debian 12, which has no package of it; the history's tests need it.
#   scripts/build_pgvector.sh    as root; nothing is done if pgvector is there
set -euo pipefail
say() { printf 'pgvector: %s\n' "$*"; }
compgen -G '/usr/share/postgresql/*/extension/vector.control' >/dev/null && exit 0
version=$(ls /usr/lib/postgresql | sort -n | tail -1)
# The system's own mirror, in the next release.
mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true; } | { grep -oE '[a-z]+://[^ ]+/debian/?( |$)' || true; } | awk 'NR == 1 { print $1 }')
[ -n "$mirror" ] || { say "no Debian mirror in apt's sources"; exit 1; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" > "$work/sources.list"
options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root -qq)
say "fetching the source"
apt-get "${options[@]}" update
(cd "$work" && apt-get "${options[@]}" source --download-only pgvector >/dev/null)
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends make gcc "postgresql-server-dev-$version" >/dev/null
tar xf "$work"/pgvector_*.orig.tar.gz -C "$work"
say "building it for PostgreSQL $version"
# Without OPTFLAGS it would be built for this machine's processor only.
make -s -C "$work"/pgvector-*/ OPTFLAGS= PG_CONFIG="/usr/lib/postgresql/$version/bin/pg_config" all install >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
say "installed"
