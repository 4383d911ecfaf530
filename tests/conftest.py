"""What all tests need."""

import signal

# A shell starts what runs in its background deaf to SIGINT, and children inherit that: the tests that interrupt a job
# would then wait for one that cannot hear.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
