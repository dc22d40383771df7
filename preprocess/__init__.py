"""Raw videos to WebDataset shards of tracked, parsed faces."""
