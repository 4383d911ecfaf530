# shellcheck shell=bash
# What is installed, and the cache folder it goes to. Sourced by docker/run and docker/rootfs; here: this directory.

packages() { sed 's/#.*//' "$here/packages.txt" | awk 'NF {print $1}'; }
requirements() { sed 's/#.*//' "$here/requirements.txt" | awk 'NF {print $1}'; }

# The caller's home. HOME counts only where it names a directory: one that is unset, relative or not there would put
# gigabytes in an odd place, and MPI does not start without one. The home of the account takes its place if it is there.
home_directory() {
    local home=${HOME-}
    case $home in /*) ;; *) home='' ;; esac
    if [ ! -d "$home" ]; then home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true); fi
    case $home in /*) if [ -d "$home" ]; then echo "$home"; fi ;; esac
}
home=$(home_directory)
if [ -n "$home" ]; then export HOME=$home; else unset HOME; fi

# The cache folder; empty where there is no place for one, and then why.
cache='' no_cache=''
case ${XDG_CACHE_HOME-} in
    /*) cache=$XDG_CACHE_HOME/anvilx ;;
    ?*) no_cache="XDG_CACHE_HOME must be an absolute path, got $XDG_CACHE_HOME" ;;
    *)
        no_cache="there is no home directory for the cache folder; set HOME or XDG_CACHE_HOME to a directory"
        if [ -n "$home" ]; then cache=$home/.cache/anvilx; fi
        ;;
esac

# One environment for one list: comments and order apart. The number counts changes of how it is made.
key=$({ echo recipe 1; packages | sort; requirements | sort; } | sha256sum | cut -c1-16)
