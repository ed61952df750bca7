#!/usr/bin/env bash
# Makes the files of a release. The release workflow calls it, and it runs by hand as well.
set -euo pipefail

usage() {
    cat <<'END'
usage: packaging/package.sh archive DIR
       packaging/package.sh try DIR
       packaging/package.sh publish DIR URL

  archive  build pard for this machine, and put an archive (program, C library, manuals, licences) with its SHA-256 sum and
           bill of materials, and a Python wheel, into DIR
  try      install the archive and the wheel in DIR from a server of this machine, run them, and remove them
  publish  add installers to the archives in DIR: install.sh, install.ps1, a Homebrew formula and winget's manifests, which
           fetch from the releases of URL, a repository on GitHub

`archive` needs what `./run setup` needs, and Python 3.9 or newer with pip for the wheel. A program for Linux runs with the
glibc that it was linked with, or a newer one.
END
}

fail() {
    echo "package: $*" >&2
    exit 1
}

# Prints the SHA-256 sum of a file.
sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum <"$1" | cut -c 1-64
    else
        shasum -a 256 <"$1" | cut -c 1-64
    fi
}

find_python() {
    local name
    for name in python3 python py; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    fail "there is no Python 3.9 or newer here"
}

version() {
    sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1
}

# --- one machine's archive ---

archive() {
    local out=$1 target name tree python
    python=$(find_python)
    target=$(rustc -vV | sed -n 's/^host: //p')
    name=pard-$(version)-$target
    work=$(mktemp -d "$out/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    tree=$work/$name
    build "$tree"
    describe "$tree" "$target" "$python"
    cp "$tree/share/doc/pard/pard.cdx.json" "$out/$name.cdx.json"
    case $target in
        *windows*)
            (cd "$work" && "$python" -m zipfile -c "$name.zip" "$name")
            mv "$work/$name.zip" "$out/"
            add_sum "$out" "$name.zip"
            ;;
        *)
            tar -C "$work" -cf - "$name" | gzip -9 >"$out/$name.tar.gz"
            add_sum "$out" "$name.tar.gz"
            ;;
    esac
    PARD_TREE=$tree "$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$out" .
}

# Puts program, library, header and Python module where a prefix such as ~/.local has them.
build() {
    local tree=$1 built=$CARGO_TARGET_DIR/dist
    cargo build --locked --profile dist --package pard-cli
    PARD_PROFILE=dist ./run stage "$tree"
    mkdir -p "$tree/bin" "$tree/lib/python"
    mv "$tree/python/pard.py" "$tree/lib/python/"
    rmdir "$tree/python"
    if [ -f "$built/pard.exe" ]; then
        cp "$built/pard.exe" "$tree/bin/"
    else
        cp "$built/pard" "$tree/bin/"
        # Debug information of the standard library's objects is most of the file.
        strip -S "$tree/lib/libpard.a"
    fi
}

# Adds manuals, completions, licences and the bill of materials.
describe() {
    local tree=$1 target=$2 python=$3 doc=$1/share/doc/pard completions=$1/share
    mkdir -p "$doc" "$completions"/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
    "$tree/bin/pard" man "$tree/share/man/man1"
    "$tree/bin/pard" completions bash >"$completions/bash-completion/completions/pard"
    "$tree/bin/pard" completions zsh >"$completions/zsh/site-functions/_pard"
    "$tree/bin/pard" completions fish >"$completions/fish/vendor_completions.d/pard.fish"
    "$tree/bin/pard" completions powershell >"$doc/pard-completions.ps1"
    cp README.md CHANGELOG.md SECURITY.md LICENSE-* "$doc/"
    "$python" packaging/dependencies.py licences "$target" >"$doc/THIRD-PARTY.txt"
    "$python" packaging/dependencies.py bill "$target" >"$doc/pard.cdx.json"
}

# Writes the sum of $2 in the folder $1 to a file beside it, in the form that `sha256sum -c` reads.
add_sum() {
    printf '%s  %s\n' "$(sha256 "$1/$2")" "$2" >"$1/$2.sha256"
}

# --- a trial of it ---

try() {
    local out=$1 version python found
    python=$(find_python)
    version=$(version)
    work=$(mktemp -d "$out/try.XXXXXX")
    mkdir -p "$work/served/v$version"
    cp "$out"/pard-"$version"-*.tar.gz* "$out"/pard-"$version"-*.zip* "$work/served/v$version/" 2>/dev/null || true
    "$python" -u -m http.server --bind 127.0.0.1 --directory "$work/served" 0 >"$work/log" 2>&1 &
    server=$!
    trap 'kill "$server"; rm -rf "$work"' EXIT
    until grep -q 'port [0-9]' "$work/log"; do
        sleep 0.1
    done
    PARD_BASE_URL=http://127.0.0.1:$(sed -n 's/.* port \([0-9]*\).*/\1/p' "$work/log")
    export PARD_BASE_URL
    try_installer "$version"
    "$python" -m venv "$work/environment"
    (
        cd "$work" # where no pard.py lies
        found=$(echo environment/[bS]*/python*)
        python=$work/${found%% *}
        "$python" -m pip --disable-pip-version-check install --quiet "$out"/pard_llm-"$version"-*.whl
        [ "$("$python" -m pard --version)" = "pard $version" ]
        "$python" -c "import pard; assert pard.version() == '$version'"
    ) || fail "the wheel does not work"
    echo "package: the archive and the wheel of $version work here"
}

try_installer() {
    local installed=$work/installed
    if [ -n "$(command -v cygpath)" ]; then
        installed=$(cygpath -w "$installed")
        powershell -ExecutionPolicy Bypass -File install.ps1 -Release "$1" -Prefix "$installed"
        [ "$("$work/installed/bin/pard.exe" --version)" = "pard $1" ]
        powershell -ExecutionPolicy Bypass -File install.ps1 -Prefix "$installed" -Uninstall
    else
        ./install.sh --version "$1" --prefix "$installed"
        [ "$("$installed/bin/pard" --version)" = "pard $1" ]
        ./install.sh --prefix "$installed" --uninstall
    fi
    [ ! -e "$work/installed/bin" ] || fail "the installer left something behind"
}

# --- all machines' archives ---

publish() {
    local out=$1 url=$2 releases version file
    releases=$2/releases/download
    version=$(version)
    sed -e "s|^RELEASES=\$|RELEASES=$releases|" -e "s|^VERSION=\$|VERSION=$version|" install.sh >"$out/install.sh"
    sed -e "s|^\$Releases = ''\$|\$Releases = '$releases'|" -e "s|^\$Version = ''\$|\$Version = '$version'|" \
        install.ps1 >"$out/install.ps1"
    chmod +x "$out/install.sh"
    for file in pard.rb Pard.Pard{,.installer,.locale.en-US}.yaml; do
        fill "$out" "$url" "$version" <"packaging/$file" >"$out/$file"
    done
    (cd "$out" && cat -- *.sha256 >SHA256SUMS)
}

# Fills in a template: @URL@, @VERSION@, @DATE@, and @SHA256 FILE@ by the sum of an archive.
fill() {
    local out=$1 url=$2 version=$3 line file
    while IFS= read -r line; do
        line=${line//@URL@/$url}
        line=${line//@VERSION@/$version}
        line=${line//@DATE@/$(date -u +%Y-%m-%d)}
        if [[ $line =~ @SHA256\ ([^@]*)@ ]]; then
            file=${BASH_REMATCH[1]}
            [ -f "$out/$file.sha256" ] || fail "$out has no $file.sha256"
            line=${line/"${BASH_REMATCH[0]}"/$(cut -c 1-64 "$out/$file.sha256")}
        fi
        printf '%s\n' "$line"
    done
}

main() {
    local count=2
    [ "${1:-}" != publish ] || count=3
    if [ $# -ne "$count" ] || [[ ! $1 =~ ^(archive|try|publish)$ ]]; then
        usage >&2
        exit 2
    fi
    mkdir -p "$2"
    local out
    out=$(cd "$2" && pwd)
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
    export CARGO_TARGET_DIR
    "$1" "$out" "${@:3}"
}

main "$@"
