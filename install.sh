#!/bin/sh
# Fetches a release of pard, checks it and puts it below ~/.local, without root. `install.sh --help` says more.
set -eu

# Filled in when a release is made.
RELEASES=
VERSION=

usage() {
    cat <<'END'
usage: install.sh [--version VERSION] [--prefix DIR]
       install.sh --uninstall [--prefix DIR]

Installs pard (program, C library, manual pages, completions) for Linux or macOS.

  --version VERSION  a release other than the one that this script came with
  --prefix DIR       where to: DIR/bin, DIR/lib, DIR/share and so on [default: ~/.local]
  --uninstall        remove what an earlier run put there; models that were fetched stay in their cache

PARD_BASE_URL names another place to fetch from, which has vVERSION/pard-VERSION-TARGET.tar.gz and .tar.gz.sha256.
END
}

say() {
    echo "install: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

need() {
    for tool in "$@"; do
        has "$tool" || fail "this script needs $tool, and there is none here"
    done
}

# Prints the name of this machine's archives.
target() {
    system=$(uname -s)
    machine=$(uname -m)
    # A shell that runs by Rosetta says x86_64 on Apple's own processors.
    if [ "$system" = Darwin ] && [ "$(sysctl -n hw.optional.arm64 2>/dev/null || true)" = 1 ]; then
        machine=arm64
    fi
    case $machine in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=aarch64 ;;
        *) fail "there is no release for processors of the kind $machine; build it from its sources" ;;
    esac
    case $system in
        Linux) echo "$machine-unknown-linux-gnu" ;;
        Darwin) echo "$machine-apple-darwin" ;;
        *) fail "there is no release for $system; on Windows use install.ps1, elsewhere build it from its sources" ;;
    esac
}

# Fetches the address $1 to the file $2.
fetch() {
    if has curl; then
        case $1 in
            https:*) curl --proto '=https' --tlsv1.2 --fail --location --silent --show-error --output "$2" "$1" ;;
            *) curl --fail --location --silent --show-error --output "$2" "$1" ;;
        esac
    else
        wget -q -O "$2" "$1"
    fi || fail "cannot fetch $1"
}

sha256() {
    if has sha256sum; then
        sha256sum <"$1"
    elif has shasum; then
        shasum -a 256 <"$1"
    else
        openssl dgst -sha256 -r <"$1"
    fi | cut -c 1-64
}

# Removes the files that an earlier run put there, and the folders that they leave empty.
remove() {
    while IFS= read -r file; do
        rm -f "$prefix/$file"
        folder=$(dirname "$file")
        while [ "$folder" != . ] && rmdir "$prefix/$folder" 2>/dev/null; do
            folder=$(dirname "$folder")
        done
    done <"$list"
    rm -f "$list"
    rmdir "$prefix/share/pard" "$prefix/share" 2>/dev/null || true
}

uninstall() {
    need rm rmdir dirname
    [ -f "$list" ] || fail "there is nothing of pard in $prefix that this script put there"
    remove
    say "removed pard from $prefix"
}

install() {
    need uname mktemp mkdir mv rm rmdir dirname cut sed tar gzip
    has curl || has wget || fail "this script needs curl or wget, and there is neither here"
    has sha256sum || has shasum || has openssl || fail "this script needs sha256sum, shasum or openssl to check what it fetches"
    base=${PARD_BASE_URL:-$RELEASES}
    [ -n "$base" ] || fail "this copy of the script names no place to fetch from; set PARD_BASE_URL, or take a release's own"
    [ -n "$version" ] || fail "this copy of the script belongs to no release; name one by --version"
    name=pard-$version-$(target)

    mkdir -p "$prefix/share/pard" || fail "cannot write to $prefix; name another folder by --prefix"
    work=$(mktemp -d "$prefix/share/pard/new.XXXXXX") || fail "cannot write to $prefix; name another folder by --prefix"
    trap 'rm -rf "$work"; rmdir "$prefix/share/pard" "$prefix/share" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
    say "fetching $name from $base"
    fetch "$base/v$version/$name.tar.gz.sha256" "$work/sum"
    fetch "$base/v$version/$name.tar.gz" "$work/archive"
    expected=$(cut -c 1-64 <"$work/sum")
    found=$(sha256 "$work/archive")
    [ "$found" = "$expected" ] || fail "$name.tar.gz has the SHA-256 sum $found instead of $expected; nothing was installed"
    tar -xzf "$work/archive" -C "$work" || fail "cannot unpack $name.tar.gz"
    # Tried before it takes the place of one that runs.
    "$work/$name/bin/pard" --version >/dev/null ||
        fail "$name does not run on this system (on Linux it needs glibc 2.28 or newer); build it from its sources"

    tar -tzf "$work/archive" | sed -n -e "s|^$name/||" -e '/[^/]$/p' >"$work/list"
    if [ -f "$list" ]; then
        remove
        mkdir -p "$prefix/share/pard"
    fi
    # Kept first, so that an interrupted installation can be removed, too.
    mv "$work/list" "$list"
    while IFS= read -r file; do
        mkdir -p "$(dirname "$prefix/$file")"
        mv -f "$work/$name/$file" "$prefix/$file"
    done <"$list"
    say "installed $("$prefix/bin/pard" --version) in $prefix; \`pard chat\` talks with a model, \`pard doctor\` checks this machine"
    case :$PATH: in
        *":$prefix/bin:"*) ;;
        *)
            say "$prefix/bin is not on your PATH; add it in your shell's profile:"
            echo "    export PATH=\"$prefix/bin:\$PATH\"" >&2
            ;;
    esac
}

main() {
    version=$VERSION
    prefix=
    action=install
    while [ $# -gt 0 ]; do
        case $1 in
            --version | --prefix)
                if [ -z "${2:-}" ]; then
                    fail "$1 needs a value"
                fi
                if [ "$1" = --version ]; then version=${2#v}; else prefix=$2; fi
                shift
                ;;
            --uninstall) action=uninstall ;;
            -h | --help)
                usage
                exit
                ;;
            *)
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
    if [ -z "$prefix" ]; then
        prefix=${HOME:?is not set; name a folder by --prefix}/.local
    fi
    case $prefix in
        /*) ;;
        *) prefix=$PWD/$prefix ;;
    esac
    case $version in
        */* | *[!0-9A-Za-z.+-]*) fail "$version is no version" ;;
    esac
    list=$prefix/share/pard/installed
    "$action"
}

# At the end, so that a script that was cut short does nothing.
main "$@"
