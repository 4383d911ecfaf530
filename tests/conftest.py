"""What all tests need."""

import os
import signal

# Before any test module loads PyTorch or PETSc: threads that spin slow each other down (see micro.threads).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts what runs in its background deaf to SIGINT, and children inherit that: the tests that interrupt a job
# would then wait for one that cannot hear.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
