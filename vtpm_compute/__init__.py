"""Virtual TPMs for Nova's servers on Hyper-V: a driver of nova-compute on the Windows hosts."""
