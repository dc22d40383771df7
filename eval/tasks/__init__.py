"""One module a task; each takes a model and a dataset and returns a JSON-ready result."""
