"""Remote shards on this machine: copies made ahead of use, and byte ranges where there is no copy."""
