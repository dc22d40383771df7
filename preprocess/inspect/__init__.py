"""Looking at a finished dataset: check it, count it, draw it (`marlin dataset verify | stats | show`)."""
