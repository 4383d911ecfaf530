# shellcheck shell=bash
# What is installed, and the cache folder it goes to. Sourced by docker/run and docker/rootfs; here: this directory.

packages() { sed 's/#.*//' "$here/packages.txt" | awk 'NF {print $1}'; }
requirements() { sed 's/#.*//' "$here/requirements.txt" | awk 'NF {print $1}'; }

# One environment for one list: comments and order apart. The number counts changes of how it is made.
cache=${XDG_CACHE_HOME:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache}/anvilx
key=$({ echo recipe 1; packages | sort; requirements | sort; } | sha256sum | cut -c1-16)
