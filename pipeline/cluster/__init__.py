"""Ray: a connection to a cluster, a fleet of workers, and whether they compute the same bits."""
