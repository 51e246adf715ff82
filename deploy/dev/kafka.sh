#!/usr/bin/env bash
# A real Apache Kafka (KRaft, one process as broker and controller) for tests, benchmarks and trials. Needs Java 17 and Maven, no docker.
#
#   kafka.sh fetch                  the jars, once (54 MB, a minute the first time); prints their folder
#   kafka.sh run DIR [PORT [CPORT]] run a broker in the foreground with its data in DIR (default ports 9092 and 9093); end it with a signal
#
# In the environment of `run`:
#   KAFKA_HEAP     heap (512m)
#   KAFKA_JAVA     further options of java; -XX:TieredStopAtLevel=1 starts with half the work, for a broker that does not live long
#   KAFKA_SECURE   port of a second listener, SASL/PLAIN over TLS; then also KAFKA_USERS ("name:password name:password …") and
#                  KAFKA_PEM, a file with the server's private key and certificate chain
#   KAFKA_EXTRA    a file with further lines for server.properties
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version="$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")"
jars="$here/../../build/kafka-$version"

shared=()
[ ! -e "$jars/classes.jsa" ] || shared=("-XX:SharedArchiveFile=$jars/classes.jsa" -Xshare:auto)

say() { echo "kafka: $*" >&2; }

fetch() {
  [ -e "$jars/complete" ] && return
  command -v mvn >/dev/null || { say "Maven is missing; to enable: apt-get install maven"; exit 3; }
  mkdir -p "$jars"
  exec 9>"$jars/lock"
  flock 9 # neighbours wait for one download
  if [ ! -e "$jars/complete" ]; then
    say "fetching Kafka $version (once)"
    mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars/libs" </dev/null >"$jars/log" 2>&1 ||
      { tail -n 15 "$jars/log" >&2; say "Maven failed"; exit 1; }
    touch "$jars/complete"
  fi
  flock -u 9
  exec 9>&-
}

# What the broker loads, as an archive of Java's: it starts with half the work. Made once, by a broker that comes up and ends; without it
# everything works, too.
archive() {
  [ -e "$jars/archived" ] && return
  exec 9>"$jars/lock"
  flock 9
  if [ ! -e "$jars/archived" ]; then
    local dir port cport
    dir="$(mktemp -d)" port="$(free_port 21000)" cport="$(free_port 22000)"
    prepare "$dir" "$port" "$cport"
    java "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$jars/libs/*" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
      "-XX:ArchiveClassesAtExit=$jars/classes.jsa" -Xmx256m kafka.Kafka "$dir/server.properties" >"$dir/log" 2>&1 9>&- &
    local broker=$! tries=600
    while kill -0 "$broker" 2>/dev/null && ! taken "$port" && [ $((tries -= 1)) -gt 0 ]; do sleep 0.2; done
    kill "$broker" 2>/dev/null && wait "$broker" || true
    rm -rf "$dir"
    touch "$jars/archived"
  fi
  flock -u 9
  exec 9>&-
}

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() { # FROM
  local port=$(($1 + RANDOM % 900))
  while taken "$port"; do port=$((port + 1)); done
  echo "$port"
}

settings() { # DIR PORT CPORT
  local listeners="PLAINTEXT://127.0.0.1:$2,CONTROLLER://127.0.0.1:$3" advertised="PLAINTEXT://127.0.0.1:$2"
  if [ -n "${KAFKA_SECURE:-}" ]; then
    listeners="$listeners,SECURE://127.0.0.1:$KAFKA_SECURE"
    advertised="$advertised,SECURE://127.0.0.1:$KAFKA_SECURE"
  fi
  cat <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$3
controller.listener.names=CONTROLLER
listeners=$listeners
advertised.listeners=$advertised
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
log.dirs=$1/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
EOF
  if [ -n "${KAFKA_SECURE:-}" ]; then
    local users="" one
    for one in ${KAFKA_USERS:?KAFKA_USERS names who may come}; do users="$users user_${one%%:*}=\"${one#*:}\""; done
    cat <<EOF
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=${KAFKA_PEM:?KAFKA_PEM names the key and certificate of the server}
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required$users;
EOF
  fi
  [ -z "${KAFKA_EXTRA:-}" ] || cat "$KAFKA_EXTRA"
}

log_settings() {
  cat <<EOF
status=error
appender.out.type=Console
appender.out.name=out
appender.out.target=SYSTEM_ERR
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=${KAFKA_LOG:-warn}
rootLogger.appenderRef.out.ref=out
EOF
}

prepare() { # DIR PORT CPORT: configuration and an empty log, where there is none yet; the first one is kept, as what others begin with
  settings "$@" >"$1/server.properties"
  chmod 600 "$1/server.properties" # it may hold passwords
  log_settings >"$1/log4j2.properties"
  [ ! -e "$1/data/meta.properties" ] || return 0
  if [ -e "$jars/formatted" ]; then
    mkdir -p "$1/data"
    cp "$jars/formatted/bootstrap.checkpoint" "$jars/formatted/meta.properties" "$1/data/" # by which it is known as whole, last
    return
  fi
  java "${shared[@]}" -cp "$jars/libs/*" -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "-Dlog4j2.configurationFile=$1/log4j2.properties" \
    kafka.tools.StorageTool format -t longshoreDevelopment00 -c "$1/server.properties" >"$1/format.log" 2>&1 ||
    { cat "$1/format.log" >&2; exit 1; }
  local kept
  kept="$(mktemp -d "$jars/formatted.XXXXXX")"
  cp "$1/data/bootstrap.checkpoint" "$1/data/meta.properties" "$kept"
  mv -T "$kept" "$jars/formatted" 2>/dev/null || rm -rf "$kept" # a neighbour was first
}

run() {
  command -v java >/dev/null || { say "Java is missing; to enable: apt-get install openjdk-17-jre-headless"; exit 3; }
  fetch
  mkdir -p "$1"
  local dir
  dir="$(cd "$1" && pwd)"
  exec 8>"$dir/lock" # two brokers on one folder damage it; the lock ends with the process
  flock -n 8 || { say "a broker runs on $dir already"; exit 4; }
  prepare "$dir" "${2:-9092}" "${3:-9093}"
  local more=()
  read -ra more <<<"${KAFKA_JAVA:-}"
  exec java "-Dlog4j2.configurationFile=$dir/log4j2.properties" -cp "$jars/libs/*" "${shared[@]}" "-Xmx${KAFKA_HEAP:-512m}" -XX:+UseSerialGC "${more[@]}" kafka.Kafka "$dir/server.properties"
}

case "${1:-}" in
  fetch) fetch && archive && echo "$jars/libs" ;;
  run) [ $# -ge 2 ] || { say "run needs a folder"; exit 2; }; run "${@:2}" ;;
  *) sed -n '2,12p' "$0" | sed 's/^# \{0,1\}//'; [ "${1:-}" = help ] || exit 2 ;;
esac
