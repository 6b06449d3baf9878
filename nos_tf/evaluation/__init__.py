"""Who trains: this process, a pool of processes, a cluster, or a table of known rewards."""
