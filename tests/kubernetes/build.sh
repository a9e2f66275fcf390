#!/usr/bin/env bash
# Builds the Kubernetes components that the tests start, once, and prints the folder that holds them.
#
#   build.sh [FOLDER]     default: ${XDG_CACHE_HOME:-~/.cache}/manx/kubernetes/VERSION
#
# Does nothing where KUBEBUILDER_ASSETS names a folder with a kube-apiserver, or where what FOLDER holds was built from
# these sources. The first build needs Go, the Go module proxy, about 5 minutes of two cores, and 3.2 GB in Go's caches.
set -euo pipefail

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    [ -x "$KUBEBUILDER_ASSETS/kube-apiserver" ] || { echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS: no kube-apiserver in it" >&2; exit 1; }
    echo "$KUBEBUILDER_ASSETS"
    exit
fi

folder=${1:-}
[ -z "$folder" ] || { mkdir -p "$folder"; folder=$(cd "$folder" && pwd); }
cd "$(dirname "${BASH_SOURCE[0]}")"

version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' go.mod)
[ -n "$version" ] || { echo "$PWD/go.mod: no version of k8s.io/kubernetes" >&2; exit 1; }
: "${folder:=${XDG_CACHE_HOME:-$HOME/.cache}/manx/kubernetes/$version}"

# What is there was built from these sources?
sources=$(cat main.go go.mod go.sum "${BASH_SOURCE[0]##*/}" | sha256sum)
if [ "$(cat "$folder/sources" 2>/dev/null)" = "$sources" ]; then
    echo "$folder"
    exit
fi

wanted=$(sed -n 's/^go //p' go.mod)
command -v go >/dev/null || { echo "Go $wanted or later is needed for the tests against Kubernetes: https://go.dev/dl" >&2; exit 1; }
has=$(GOTOOLCHAIN=local go env GOVERSION)
if [ "$(printf '%s\n' "$wanted" "${has#go}" | sort -V | head -1)" != "$wanted" ]; then
    # From 1.21 on Go fetches the version that go.mod names, if it may; distributions often forbid it by default.
    [ "$(printf '%s\n' 1.21 "${has#go}" | sort -V | head -1)" = 1.21 ] ||
        { echo "Go $wanted or later is needed for the tests against Kubernetes ($has is too old to fetch it): https://go.dev/dl" >&2; exit 1; }
    export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"
fi

echo "building Kubernetes $version into $folder" >&2
mkdir -p "$folder"
# Built aside and moved, so that a build that is broken off or runs twice leaves nothing half-written.
program=$(mktemp "$folder/.kubernetes.XXXXXX")
trap 'rm -f "$program"' EXIT
minor=${version#v1.}
# Without the stamps the server calls itself v0.0.0-master, which clients may take for an ancient one.
package=k8s.io/component-base/version
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$program" -ldflags "-s -w \
    -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}" .
chmod 755 "$program"
mv "$program" "$folder/kubernetes"
trap - EXIT
"$folder/kubernetes" | while read -r name; do ln -sf kubernetes "$folder/$name"; done
echo "$sources" >"$folder/sources"
echo "$folder"
