#!/bin/sh
# Writes .env beside compose.yaml, with a random value for every password and key that .env.example names. Run it before the first
# start: MongoDB and Grafana keep the passwords of their first one.
set -eu
cd "$(dirname "$0")/.."

refuse() {
  echo "deploy/secrets.sh: $1" >&2
  exit 1
}

if [ -e .env ]; then
  refuse "there is a file .env, which is left as it is: move it away, run this again, and add what you need of it"
fi
names=$(sed -n -e 's/^\([A-Z_]*_PASSWORD\)=.*/\1/p' -e 's/^\([A-Z_]*_KEY\)=.*/\1/p' .env.example)
text="# Written by deploy/secrets.sh. All other options are in .env.example."
for name in $names; do
  secret=$(od -An -v -N24 -tx1 /dev/urandom | tr -d ' \n')
  [ ${#secret} -eq 48 ] || refuse "cannot read 24 random bytes"
  text="$text
$name=$secret"
done
# For this user's eyes only, and never over a file that has come meanwhile.
umask 077
set -C
printf '%s\n' "$text" >.env
echo "deploy/secrets.sh: wrote .env with $(echo "$names" | wc -w | tr -d ' ') secrets"
