"""Raw videos, folders of frames and sound, as frames and samples on one clock."""
