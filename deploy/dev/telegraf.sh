#!/usr/bin/env bash
# Telegraf, the peer of the bridge in `make bench`: built once, with nothing but what the benchmark needs of it. Needs Go, no docker.
#
#   telegraf.sh build   build it where it is missing (a minute or two); prints the program's path
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version=v1.39.3
module=github.com/influxdata/telegraf/cmd/telegraf
parts=custom,inputs.mqtt_consumer,outputs.kafka,parsers.value,serializers.template
folder="$here/../../build/telegraf-$version"

say() { echo "telegraf: $*" >&2; }

build() {
  [ -x "$folder/telegraf" ] && return
  command -v go >/dev/null || { say "Go is missing; to enable: apt-get install golang-go (1.24 or newer)"; exit 3; }
  mkdir -p "$folder"
  exec 9>"$folder/lock"
  flock 9 # neighbours wait for one build
  if [ ! -x "$folder/telegraf" ]; then
    say "building Telegraf $version (once)"
    GOBIN="$(cd "$folder" && pwd)/new" go install -tags "$parts" "$module@$version" </dev/null >"$folder/log" 2>&1 ||
      { tail -n 5 "$folder/log" >&2; say "the build failed"; exit 1; }
    mv "$folder/new/telegraf" "$folder/telegraf"
    rmdir "$folder/new"
  fi
  flock -u 9
  exec 9>&-
}

case "${1:-}" in
  build) build && echo "$folder/telegraf" ;;
  *) sed -n '2,4p' "$0" | sed 's/^# \{0,1\}//'; [ "${1:-}" = help ] || exit 2 ;;
esac
