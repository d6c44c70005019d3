# Read by bash before each shell block of the site.
set -euo pipefail
