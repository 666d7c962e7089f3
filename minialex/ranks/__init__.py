"""The processes that train one network together: one of them alone, or as many ranks as MPI has started."""
