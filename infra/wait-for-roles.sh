#!/bin/sh
# azd runs this when the resources exist. The first deployment fails with 403 while Azure still spreads the new role
# assignments (https://github.com/Azure/azure-dev/issues/8026), so the first run waits. Later runs return at once.
set -eu
seconds="${ROLES_WAIT_SECONDS:-90}"
if [ "${ROLES_READY_FOR:-}" = "$APP_PRINCIPAL_ID" ]; then
  exit 0
fi
echo "The roles of the app are new. Waiting ${seconds} s until storage knows them."
sleep "$seconds"
azd env set ROLES_READY_FOR "$APP_PRINCIPAL_ID"
