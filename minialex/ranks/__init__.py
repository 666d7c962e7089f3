"""The processes that train one network together, its ranks: MPI (mpi4py, `mpiexec`) starts and joins them."""
