#!/bin/bash
# Starts as the public image does, with a key: a replica set that asks for passwords wants one. Its only member shares it with
# nobody, so each start makes a new one.
set -euo pipefail
key=/run/replica-set.key
rm -f "$key"
head -c 512 /dev/urandom | base64 -w 0 >"$key"
chmod 400 "$key"
chown mongodb:mongodb "$key"
exec docker-entrypoint.sh "$@" --keyFile "$key"
