#!/bin/sh
# What the tests of real servers need beyond the lock: Neo4j's jars, by Maven. Where they cannot be had, it says so and the tests of them are skipped.
set -u
into=$1/neo4j
[ -f "$into/fetched" ] && exit 0
if ! command -v mvn >/dev/null 2>&1 || ! command -v java >/dev/null 2>&1; then
  echo "no Java and Maven: the tests on a real Neo4j are skipped (Debian: apt-get install maven openjdk-17-jre-headless)"
  exit 0
fi
echo "fetching Neo4j for the tests (once, 150 MB)"
mkdir -p "$into"
if mvn -B -q -f "$(dirname "$0")/pom.xml" "-Dservices=$(cd "$into" && pwd)" package >"$into/fetch.log" 2>&1; then
  touch "$into/fetched"
else
  echo "Neo4j could not be fetched ($into/fetch.log): the tests on it are skipped"
fi
