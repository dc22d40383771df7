"""Finding faces: detection, tracking, filters, copies, crops."""
