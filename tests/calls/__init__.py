"""Random sequences of system calls, made by a real program in both kernels: none is an error of ours."""
