"""The processes that train one network together: a single process, or as many ranks as MPI has started."""
