#!/bin/sh
# Lets the containers of the network manx on this node find each other by the names of their services, or by their own names
# where no compose file made them: writes all of them into the /etc/hosts of each. To be run again after containers have
# started.
set -eu
containers=$(podman ps --quiet --filter network=manx)
[ -n "$containers" ] || exit 0
names=$(podman inspect --format '{{$name := or (index .Config.Labels "com.docker.compose.service") .Name}}{{with .NetworkSettings.Networks.manx}}{{.IPAddress}} {{$name}} # manx
{{.GlobalIPv6Address}} {{$name}} # manx{{end}}' $containers)
for hosts in $(podman inspect --format '{{.HostsPath}}' $containers); do
    # Written in place: the container has this very file mounted.
    others=$(grep -v '# manx$' "$hosts" || true)
    printf '%s\n%s\n' "$others" "$names" >"$hosts"
done
