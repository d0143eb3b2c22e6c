#!/bin/sh
# Makes an image that docker/Dockerfile can build in, where no registry can be reached: of this machine's own C compiler, Rust
# toolchain and downloaded crates.
#
#   docker/local-base.sh [NAME]                    (NAME: internaltls-build)
#   docker build --file docker/Dockerfile --build-arg BUILD_IMAGE=internaltls-build --tag internaltls .
#
# It needs Debian or what descends from it, gcc and Rust, and crates downloaded before (`cargo fetch --locked`). An image of the same
# content is not made again.
set -eu
cd "$(dirname "$0")/.."
name=${1:-internaltls-build}
packages="gcc libc6-dev binutils dash coreutils findutils grep sed"

say() { printf 'local-base: %s\n' "$*" >&2; }
for tool in docker cargo dpkg-query apt-cache tar; do
    command -v "$tool" >/dev/null || { say "$tool is needed and not installed"; exit 1; }
done

cargo fetch --locked --target "$(rustc -vV | sed -n 's/^host: //p')" >&2
sysroot=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# shellcheck disable=SC2086 # a list of names
all=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    $packages | grep '^[a-z0-9]' | sort -u)
# shellcheck disable=SC2086
installed=$(dpkg-query --show --showformat '${db:Status-Status} ${binary:Package} ${Version}\n' $all 2>/dev/null | sed -n 's/^installed //p')

content=$( (printf '%s\n' "$installed"; rustc -vV; cat Cargo.lock "$0") | sha256sum | cut -d' ' -f1)
if [ "$(docker image inspect --format '{{.Comment}}' "$name" 2>/dev/null || true)" = "$content" ]; then
    say "$name is there already"
    exit 0
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM

say "copying $(printf '%s\n' "$installed" | wc -l) packages, $(rustc --version) and the crates"
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/sbin" "$root/tmp" "$root/root" "$root/etc"
for folder in bin lib lib64 sbin; do ln -s "usr/$folder" "$root/$folder"; done
# A package may name /lib/x where /lib is a link to /usr/lib; in the copy, as here, there is one place for both.
# shellcheck disable=SC2046
dpkg-query --listfiles $(printf '%s\n' "$installed" | cut -d' ' -f1) \
    | sed -n -E -e 's#^/(bin|lib|lib64|sbin)/#/usr/\1/#' -e 's#^/##p' \
    | grep -E '^(usr/(bin|lib|lib64|sbin|include|libexec)|etc/alternatives)/' | sort -u \
    | while read -r path; do
        if [ -L "/$path" ] || [ -f "/$path" ]; then printf '%s\n' "$path"; fi
    done > "$root/list"
printf 'usr/bin/cc\netc/alternatives/cc\n' >> "$root/list"
tar --create --directory / --no-recursion --files-from "$root/list" | tar --extract --directory "$root" --keep-directory-symlink
rm "$root/list"

mkdir -p "$root/usr/local/rust" "$root/usr/local/cargo/registry"
cp -a "$sysroot/bin" "$sysroot/lib" "$root/usr/local/rust/"
cp -a "$cargo_home/registry/index" "$cargo_home/registry/cache" "$root/usr/local/cargo/registry/"

say "importing $name"
tar --create --directory "$root" --owner=0 --group=0 . | docker import \
    --change 'ENV PATH=/usr/local/rust/bin:/usr/bin:/usr/sbin' \
    --change 'ENV CARGO_HOME=/usr/local/cargo' \
    --change 'ENV CARGO_NET_OFFLINE=true' \
    --message "$content" - "$name" >&2
