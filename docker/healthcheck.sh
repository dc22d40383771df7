#!/bin/sh
# Health of a container: whether every place that the pipeline writes to takes a file (not full, not read-only, not
# somebody else's). A run that is over tells by its exit status, and training that hangs ends itself (train.hang_timeout).
for folder in /data /cache /tmp; do
    file=$(mktemp "$folder/.health-XXXXXX") || exit 1
    echo written >"$file" || { rm -f "$file"; exit 1; }
    rm "$file"
done
