#!/bin/bash
# The health check. Once ready.js has found or made everything, only "are you the writable primary?" is asked again, in the
# protocol's own bytes: starting a shell for that every ten seconds costs a seventh of a core.
set -uo pipefail
export LC_ALL=C
host=${MONGO_MEMBER%:*} port=${MONGO_MEMBER##*:}
# Gone with the container: after each start everything is looked at once.
mark=/run/mongo-is-ready

if [ ! -e "$mark" ]; then
  # It connects by the name that clients use: the temporary server that the image runs to create the first user listens on
  # 127.0.0.1 only, and must not pass the check.
  mongosh --quiet --norc --host "$MONGO_MEMBER" --username "$MONGO_INITDB_ROOT_USERNAME" --password "$MONGO_INITDB_ROOT_PASSWORD" \
    --authenticationDatabase admin /usr/local/lib/ready.js || exit 1
  touch "$mark"
  exit 0
fi

exec 3<>"/dev/tcp/$host/$port" || exit 1
# OP_MSG with { hello: 1, $db: "admin" }: 16 bytes of header, 4 of flags, 1 for the kind of section, 31 of BSON.
printf '\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0' >&3
while IFS= read -r -d '' -t 3 -u 3 field; do
  if [[ $field == *isWritablePrimary ]]; then
    # A boolean; bash skips a zero byte, and what follows one here is never a 1.
    IFS= read -r -N 1 -t 3 -u 3 value
    if [[ $value == $'\x01' ]]; then echo primary; exit 0; fi
    break
  fi
done
echo "not the primary"
exit 1
