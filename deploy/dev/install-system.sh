#!/usr/bin/env bash
# Installs the parts of the system that some tests need and Python packages cannot bring. Idempotent, and quick when all is there.
#
# Installs only as root on Debian or a relative of it, and never starts a service. Elsewhere it says which suites will be skipped
# and what would enable them, and succeeds; under CI=true a missing part is a failure, because nobody reads a skip there.
# LONGSHORE_NO_SYSTEM=1: never install, only say.
set -euo pipefail

# named as Debian names the packages; tests/support/needs.py holds the same table for the tests
parts=(mosquitto chromium default-jre-headless maven postgresql prometheus faketime)

is_there() {
  case "$1" in
    mosquitto) command -v mosquitto || test -x /usr/sbin/mosquitto ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' ;;
    chromium) command -v chromium || command -v chromium-browser || command -v google-chrome ;;
    default-jre-headless) command -v java ;;
    maven) command -v mvn ;;
    prometheus) command -v promtool ;;
    faketime) compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' ;;
  esac >/dev/null 2>&1
}

what_it_serves() {
  case "$1" in
    mosquitto) echo "conformance of the MQTT transport on a real broker" ;;
    postgresql) echo "the central store on a real PostgreSQL" ;;
    chromium) echo "the hub's web pages in a browser" ;;
    default-jre-headless) echo "the Kafka bridge on a real broker" ;;
    maven) echo "the Kafka bridge on a real broker (it brings the broker's jars)" ;;
    faketime) echo "an edge whose clock is wrong, jumps and steps back" ;;
    prometheus) echo "alert rules, dashboards and metrics under promtool" ;;
  esac
}

find_missing() {
  local part
  missing=()
  for part in "${parts[@]}"; do is_there "$part" || missing+=("$part"); done
}

may_install() { [ -z "${LONGSHORE_NO_SYSTEM:-}" ] && [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null; }

# Debian starts a service as it installs it; a policy of exit code 101 forbids that. An existing policy is left alone.
policy=/usr/sbin/policy-rc.d
log="$(mktemp)"
made_policy=""
trap 'rm -f "$log"; [ -z "$made_policy" ] || rm -f "$policy"' EXIT
forbid_services() {
  [ -e "$policy" ] && return 0
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  made_policy=yes
}

install_missing() {
  echo "system: installing ${missing[*]} (under a minute, once)"
  forbid_services
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    echo "system: apt-get failed; its last lines:" >&2
    tail -n 15 "$log" >&2
  fi
}

report_missing() {
  local part
  {
    echo "!!"
    for part in "${missing[@]}"; do echo "!! SKIPPED without $part: $(what_it_serves "$part")"; done
    echo "!! To enable: apt-get install ${missing[*]}   (as root; or your system's way)"
    echo "!!"
  } >&2
}

find_missing
if [ ${#missing[@]} -gt 0 ] && may_install; then install_missing; find_missing; fi
[ ${#missing[@]} = 0 ] && exit 0
report_missing
[ "${CI:-}" != true ]
