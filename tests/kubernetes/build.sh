#!/usr/bin/env bash
# Builds the Kubernetes components that the tests start, and what a cluster runs beside them, once, and prints the folder
# that holds them.
#
#   build.sh [FOLDER]     default: ${XDG_CACHE_HOME:-~/.cache}/manx/kubernetes/VERSION
#
# Does nothing where KUBEBUILDER_ASSETS names a folder with a kube-apiserver (which is enough for the tests that need no
# more; it says what the cluster of the lab lacks), or where what FOLDER holds was built from these sources. The first
# build needs Go, the Go module proxy, about 6 minutes of two cores, and 5 GB in Go's caches.
set -euo pipefail

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
    [ -x "$KUBEBUILDER_ASSETS/kube-apiserver" ] || { echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS: no kube-apiserver in it" >&2; exit 1; }
    for name in kubectl kube-controller-manager kube-scheduler kubelet kube-proxy pause coredns agnhost \
        loopback portmap ptp host-local; do
        [ -x "$KUBEBUILDER_ASSETS/$name" ] || missing="${missing:-}${missing:+, }$name"
    done
    [ -z "${missing:-}" ] || echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS: no $missing, so no cluster in the lab" >&2
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
sources=$(find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum)
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
built=$(mktemp -d "$folder/.build.XXXXXX")
trap 'rm -rf "$built"' EXIT

# compile MODULE PROGRAM PACKAGE [LINKER-FLAGS]: one static program.
compile() { (cd "$1" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$built/$2" -ldflags "-s -w ${4:-}" "$3"); }

minor=${version#v1.}
# Without the stamps the server calls itself v0.0.0-master, which clients may take for an ancient one.
package=k8s.io/component-base/version
compile . kubernetes . "-X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
compile . pause ./pause
agnhost=k8s.io/kubernetes/test/images/agnhost
compile . agnhost $agnhost "-X main.Version=$(cat "$(go list -f '{{.Dir}}' $agnhost)/VERSION")"
compile coredns coredns .
for name in ipam/host-local main/loopback main/ptp meta/portmap; do
    compile cni "${name#*/}" "github.com/containernetworking/plugins/plugins/$name"
done
chmod 755 "$built"/*
mv "$built"/* "$folder"
"$folder/kubernetes" | while read -r name; do ln -sf kubernetes "$folder/$name"; done
echo "$sources" >"$folder/sources"
echo "$folder"
