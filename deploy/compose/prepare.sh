#!/usr/bin/env bash
# Makes what docker-compose.yml names and no repository holds: keys, a certificate, passwords, the directories of a hub and two edges, their
# cards at the hub, and Mosquitto's files. Once; what is there already stays. Needs docker (or LONGSHORE_BIN, see below) and openssl.
#
#   deploy/compose/prepare.sh [DIR]       DIR: var/compose unless said
#
# LONGSHORE_BIN=.venv/bin: the commands of that folder instead of containers. BROKER_NAME: the name edges reach the broker by (mosquitto).
set -euo pipefail
umask 077
top="$(cd "$(dirname "$0")/../.." && pwd)"
dir="${1:-$top/var/compose}"
name="${BROKER_NAME:-mosquitto}"
if [ -z "${LONGSHORE_BIN:-}" ]; then # before anything is made
  if ! docker version >/dev/null 2>&1; then
    echo "error: no docker answers here (docker version). With Longshore's commands on this machine: LONGSHORE_BIN=.venv/bin $0 ${1:-}" >&2
    exit 1
  fi
  docker build -q --target hub -t longshore-hub:0.1 -f "$top/deploy/Dockerfile" "$top" >/dev/null
elif [ ! -x "$LONGSHORE_BIN/longshore-hub" ]; then
  echo "error: LONGSHORE_BIN: no longshore-hub is in $LONGSHORE_BIN; make setup puts it into .venv/bin" >&2
  exit 1
fi
mkdir -p "$dir"/{secrets,broker/certs,mosquitto,prometheus}
dir="$(cd "$dir" && pwd)"
printf 'LONGSHORE_UID=%s\nLONGSHORE_GID=%s\n' "$(id -u)" "$(id -g)" > "$dir/env"

# The hub's settings that matter for Mosquitto's files; hub.toml in this folder says the same in the containers.
settings=(LONGSHORE_BROKER__KIND=external "LONGSHORE_BROKER__HOST=$name" LONGSHORE_BROKER__PORT=8883 LONGSHORE_BROKER__TLS=true
  LONGSHORE_BROKER__USERNAME=hub "LONGSHORE_BROKER__PASSWORD_FILE=$dir/secrets/broker_password")

if [ -n "${LONGSHORE_BIN:-}" ]; then
  node() { local command="$1"; shift; env "${settings[@]}" "$LONGSHORE_BIN/$command" "$@"; }
else
  given=()
  for setting in "${settings[@]}"; do given+=(-e "$setting"); done
  node() {
    local command="$1"; shift
    docker run --rm --network none --user "$(id -u):$(id -g)" "${given[@]}" -v "$dir:$dir" -w "$dir" --entrypoint "$command" longshore-hub:0.1 "$@"
  }
fi

secret() { [ -s "$dir/secrets/$1" ] || openssl rand -hex 24 > "$dir/secrets/$1"; }
secret broker_password
secret postgres_password
secret grafana_password

# An authority of this directory's own, and the broker's certificate.
if [ ! -s "$dir/broker/certs/server.crt" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Longshore compose" \
    -addext "keyUsage=critical,keyCertSign" -keyout "$dir/secrets/broker_ca.key" -out "$dir/secrets/broker_ca" 2>/dev/null
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$dir/broker/certs/server.key" \
    -out "$dir/broker/certs/server.csr" 2>/dev/null
  openssl x509 -req -in "$dir/broker/certs/server.csr" -CA "$dir/secrets/broker_ca" -CAkey "$dir/secrets/broker_ca.key" -CAcreateserial -days 825 \
    -extfile <(printf 'subjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' "$name") \
    -out "$dir/broker/certs/server.crt" 2>/dev/null
  rm -f "$dir/broker/certs/server.csr"
fi

# Paths in configurations are those inside the containers, where each directory is /data; the commands below never need them.
if [ ! -s "$dir/hub/hub.toml" ]; then
  node longshore-hub init "$dir/hub" --org acme --region north --json > "$dir/hub.json"
fi
address="$(sed -n 's/.*"address": "\([^"]*\)".*/\1/p' "$dir/hub.json" | sed "s#^longshore+mqtt://[^/]*/#longshore+mqtts://$name:8883/#")"
for edge in edge-a edge-b; do
  if [ ! -s "$dir/$edge/edge.toml" ]; then
    node longshore-edge init "$dir/$edge" --node "$edge" --site "dock-${edge#edge-}" --region north --hub "$address" >/dev/null
  fi
  node longshore-hub nodes add "$dir/$edge/node.card.json" --dir "$dir/hub" >/dev/null
done
node longshore-hub broker acl --out "$dir/broker/longshore.acl" --dir "$dir/hub" >/dev/null
node longshore-hub broker passwords --out "$dir/broker/longshore.passwords" --dir "$dir/hub" >/dev/null

echo "ready: $dir"
echo "next:  docker compose --env-file ${dir#"$top"/}/env up -d"
echo "       http://127.0.0.1:8800 (token in ${dir#"$top"/}/hub/api.token), Grafana http://127.0.0.1:3000 (admin; secrets/grafana_password)"
