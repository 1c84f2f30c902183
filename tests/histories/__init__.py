"""Random histories of an upstream and of the walks over it, in one process and without sockets."""
