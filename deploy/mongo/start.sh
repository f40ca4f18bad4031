#!/bin/bash
# Starts like the public image, with a key file: a replica set with authentication requires one. The only member shares it with
# no other, so each start generates a new one.
set -euo pipefail
if [[ ${MONGO_INITDB_ROOT_PASSWORD:-} == demo-password ]]; then
  echo "WARNING: demo password for user $MONGO_INITDB_ROOT_USERNAME of MongoDB, which is no secret: run deploy/secrets.sh before the first start" >&2
fi
key=/run/replica-set.key
rm -f "$key"
head -c 512 /dev/urandom | base64 -w 0 >"$key"
chmod 400 "$key"
exec docker-entrypoint.sh "$@" --keyFile "$key"
