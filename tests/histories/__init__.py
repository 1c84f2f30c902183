"""Random histories of an upstream and of the polls over it, in one process and without sockets."""
