#!/usr/bin/env bash
# Makes the image from manifests/Containerfile and prints the path of the archive, which `ctr images import` takes.
#
#   image.sh [--binaries DIR] [--portmap FILE] [--output FILE] [--measure]
#   image.sh --can-compile
#
#   --binaries DIR    manx, manx-agent and manxctl are those of DIR, not compiled in a build stage
#   --portmap FILE    portmap is this program, not compiled in a build stage (static, as it runs on the host)
#   --output FILE     default: $CARGO_TARGET_DIR/images/manx-agent.tar
#   --measure         also tell how large the archive is compressed
#   --can-compile     only tell whether the base images of the build stages are there or can be fetched
#
# The archive has the image under two tags, the version's and `latest`, which topologies name. `docker load` takes it too.
#
# Needs buildah and root. Base images come from their registry. Where that is not reached, the Debian that the image's
# files come from is made out of this host's Debian mirror (mmdebstrap), under the name that the Containerfile has; the
# programs have to be given then. Does nothing where the archive was made from the same inputs.
set -euo pipefail

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { echo "image.sh: $*" >&2; exit 1; }

binaries='' portmap='' output='' measure='' only_ask=''
while [ $# -gt 0 ]; do
    case $1 in
    --measure) measure=yes ;;
    --can-compile) only_ask=yes ;;
    --binaries | --portmap | --output)
        [ $# -ge 2 ] || die "$1: what?"
        case $1 in
        --binaries) binaries=$(realpath "$2") ;;
        --portmap) portmap=$(realpath "$2") ;;
        --output) output=$(realpath -m "$2") ;;
        esac
        shift
        ;;
    *) die "$1 is no option" ;;
    esac
    shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
image=docker.io/manx/agent:v$version
: "${output:=${CARGO_TARGET_DIR:-target}/images/manx-agent.tar}"

[ "$(id -u)" = 0 ] || die "needs root, as buildah's chroot isolation does"
for program in buildah sha256sum; do
    command -v $program >/dev/null || die "$program is missing (Debian package ${program/sha256sum/coreutils})"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# there NAME: whether a base image is there or can be fetched.
there() {
    ! buildah inspect --type image "$1" >/dev/null 2>&1 || return 0
    say "fetching $1"
    timeout 900 buildah pull --quiet "$1" >/dev/null 2>"$work/pull" || {
        say "it is not to be had:$(tail -1 "$work/pull" | grep -o '[^:]*$')"
        return 1
    }
}
# The base of a stage.
base_of() { sed -n "s/^FROM \(.*\) AS $1\$/\1/p" manifests/Containerfile; }

if [ -n "$only_ask" ]; then
    there "$(base_of programs)" && there "$(base_of portmap)"
    exit
fi
mkdir -p "$(dirname "$output")"

# What the archive is made of.
inputs() {
    sha256sum manifests/Containerfile manifests/collect.sh manifests/image.sh
    [ -z "$portmap" ] || sha256sum "$portmap"
    if [ -n "$binaries" ]; then
        (cd "$binaries" && sha256sum manx manx-agent manxctl)
    else
        find . \( -name target -o -name .git -o -name docs \) -prune -o -type f ! -name '*.md' -print0 |
            sort -z | xargs -0 sha256sum
    fi
}
inputs >"$work/inputs"
if [ -e "$output" ] && cmp -s "$work/inputs" "$output.inputs"; then
    echo "$output"
    exit
fi

# debian NAME: a Debian as small as it gets. Its packages come from where this host's do.
debian() {
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing (Debian package mmdebstrap)"
    say "making it"
    mmdebstrap --quiet --variant=minbase bookworm "$work/debian.tar" >&2
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/debian.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$1" >/dev/null
    rm "$work/debian.tar"
}

options=(--pull-never --isolation chroot --layers --ignorefile manifests/Containerfile.dockerignore)
if [ -n "$binaries" ]; then
    mkdir "$work/programs"
    for program in manx manx-agent manxctl; do
        strip -o "$work/programs/$program" "$binaries/$program"
    done
    options+=(--build-context "programs=$work/programs")
fi
if [ -n "$portmap" ]; then
    mkdir "$work/portmap"
    install -m 755 "$portmap" "$work/portmap/portmap"
    options+=(--build-context "portmap=$work/portmap")
fi
[ -n "$binaries" ] || there "$(base_of programs)" || die "give the programs by --binaries"
[ -n "$portmap" ] || there "$(base_of portmap)" || die "give the program by --portmap"
debian=$(base_of system)
there "$debian" || debian "$debian"

say "building $image"
before=$(buildah images --quiet "$image" 2>/dev/null || true)
buildah bud "${options[@]}" -f manifests/Containerfile -t "$image" . >"$work/log" 2>&1 || { cat "$work/log" >&2; die "the build failed"; }

# What does not even say its version here does not do so on a node.
container=$(buildah from --pull-never "$image")
for command in "manx-agent --version" "manxctl --version" "iptables-nft --version" "ip6tables-legacy --version" "modprobe --version" "ip -V"; do
    # shellcheck disable=SC2086
    said=$(buildah run --isolation chroot "$container" -- $command 2>&1) || die "in the image, $command: $said"
    echo "    $command: $(head -1 <<<"$said")" >&2
done
buildah rm "$container" >/dev/null

rm -f "$output" "$output.inputs"
buildah push --quiet "$image" "docker-archive:$output:$image" >&2
mkdir "$work/archive"
tar -xf "$output" -C "$work/archive"
sed -i "s|\"$image\"|&,\"${image%:*}:latest\"|" "$work/archive/manifest.json"
grep -q "\"${image%:*}:latest\"" "$work/archive/manifest.json" || die "the archive does not name $image"
(cd "$work/archive" && tar -cf "$output" --owner 0 --group 0 -- *)
cp "$work/inputs" "$output.inputs"
# Its predecessor would stay for ever, without a name.
[ -z "$before" ] || [ "$before" = "$(buildah images --quiet "$image")" ] || buildah rmi "$before" >/dev/null
size="$(($(stat -c %s "$output") / 1000000)) MB"
# This takes seconds.
[ -z "$measure" ] || size="$size, compressed $(($(gzip -c "$output" | wc -c) / 1000000)) MB"
say "$image: $size"
echo "$output"
