#!/bin/bash
# The health check, see ready.js. It comes by the name that clients use: the server that the image runs for a moment to make
# the first user listens on 127.0.0.1 only, and does not pass for the real one.
exec mongosh --quiet --norc --host "$MONGO_MEMBER" --username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" \
  --authenticationDatabase admin /usr/local/lib/ready.js
