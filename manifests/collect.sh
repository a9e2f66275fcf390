#!/bin/sh
# collect.sh FOLDER: copies what the image needs of this Debian system into FOLDER: a few programs, the libraries that
# they load, and no shell.
set -eu
to=$1

# put PATH...: a file, or a link with all that it leads to, under its own path.
put() {
    for path in "$@"; do
        # Where /bin, /lib and /sbin are links to those below /usr, so they are in the image.
        directory=$(readlink -f "$(dirname "$path")")
        path=$directory/$(basename "$path")
        [ ! -e "$to$path" ] || continue
        mkdir -p "$to$directory"
        cp -a "$path" "$to$path"
        if [ -L "$path" ]; then
            target=$(readlink "$path")
            case $target in
            /*) put "$target" ;;
            *) put "$directory/$target" ;;
            esac
        fi
    done
}

mkdir -p "$to/usr/bin" "$to/usr/sbin" "$to/usr/lib" "$to/usr/lib64" "$to/etc" "$to/run" "$to/tmp" "$to/var/lib"
for name in bin sbin lib lib64; do
    ln -s "usr/$name" "$to/$name"
done

for family in iptables ip6tables; do
    put /usr/sbin/$family
    for variant in nft legacy; do
        put /usr/sbin/$family-$variant /usr/sbin/$family-$variant-save /usr/sbin/$family-$variant-restore
    done
done
put /sbin/modprobe
# A container that gets its links after it runs is given its addresses by it: containerlab's `exec`.
put /bin/ip
# Matches and targets, all of them: saving reads whatever rules others have made.
extensions=$(dirname "$(find /usr/lib -name libxt_set.so)")
put "$extensions"/*.so
put /etc/protocols /etc/ssl/certs/ca-certificates.crt /usr/share/zoneinfo/UTC /etc/debian_version /etc/os-release 2>/dev/null || true

# What all these load, and what Rust programs load; and, as nothing says so, what the C library loads to look up names.
libraries=$(dirname "$(find /usr/lib -name libgcc_s.so.1)")
{
    find "$to" -type f \( -path '*/sbin/*' -o -path '*/bin/*' -o -name '*.so*' \) -exec ldd {} + 2>/dev/null | grep -o '/[^ ]*'
    for name in libgcc_s.so.1 libc.so.6 libm.so.6 libresolv.so.2; do echo "$libraries/$name"; done
} | grep -v ':$' | sort -u | while read -r library; do put "$library"; done

echo 'root:x:0:0:root:/:/sbin/nologin' >"$to/etc/passwd"
echo 'root:x:0:' >"$to/etc/group"
# Names of hosts are looked up in the file first.
echo 'hosts: files dns' >"$to/etc/nsswitch.conf"
