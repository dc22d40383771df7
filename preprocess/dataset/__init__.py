"""What lies in storage: the plan, samples in shards, manifests, dataset.json, removals."""
