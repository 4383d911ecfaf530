# shellcheck shell=bash
# Settings common to all engines of docker/run. Sourced, never run; ANVILX_PROJECT is the clone.

# Open MPI: as root, and with more ranks than cores (the first name is Open MPI 5's, the second Open MPI 4's).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=${PRTE_MCA_rmaps_default_mapping_policy-:oversubscribe}
export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe-1}
# One machine: ranks communicate through shared memory. Open MPI would try TCP too and warn about pairs it cannot reach.
export OMPI_MCA_btl=${OMPI_MCA_btl-self,sm}

# mpirun keeps a folder named by its process number, in /tmp if not told otherwise, and does not start where a killed one
# or another container has left that folder. Where docker/run makes a container or enters a root filesystem, this one is
# new for every call and goes with it.
if [ -w /run/anvilx/mpi ]; then export PRTE_MCA_prte_tmpdir_base=${PRTE_MCA_prte_tmpdir_base-/run/anvilx/mpi}; fi

# Threads of OpenMP that wait sleep (see micro/threads.py): also where a command loads PyTorch before our packages.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY-passive}
# MPI does not start without a home; the image can be run by a user without one.
[ -d "${HOME-}" ] || export HOME=/tmp

# The packages of the clone, in any working directory.
case ":${PYTHONPATH-}:" in
    *":$ANVILX_PROJECT:"*) ;;
    *) export PYTHONPATH=$ANVILX_PROJECT${PYTHONPATH:+:$PYTHONPATH} ;;
esac
