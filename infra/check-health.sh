#!/bin/sh
# Asks the deployed app for its health until it is `ok`, for 5 minutes at most. azd and both pipelines run it after a
# deployment. PAGE_URL is the address of the app.
set -eu
tries="${HEALTH_TRIES:-30}"
pause="${HEALTH_PAUSE_SECONDS:-10}"
answer='no answer'
while [ "$tries" -gt 0 ]; do
  answer="$(curl --silent --show-error --max-time 30 "$PAGE_URL/api/health" 2>&1 || true)"
  case "$answer" in
    *'"status":"ok"'*)
      echo "$PAGE_URL is healthy: $answer"
      exit 0
      ;;
  esac
  tries=$((tries - 1))
  sleep "$pause"
done
echo "$PAGE_URL is not healthy. Its last answer: $answer" >&2
echo 'GET /api/status?code=KEY says what is missing, see docs/operating.md.' >&2
exit 1
