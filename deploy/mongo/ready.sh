#!/bin/bash
# The health check, see ready.js. It connects by the name that clients use: the temporary server that the image runs to create
# the first user listens on 127.0.0.1 only, and must not pass the check.
exec mongosh --quiet --norc --host "$MONGO_MEMBER" --username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" \
  --authenticationDatabase admin /usr/local/lib/ready.js
