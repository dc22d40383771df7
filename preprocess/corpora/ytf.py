"""YouTube Faces: `frame_images_DB/<identity>/<n>/<n>.<frame>.jpg`."""

from pathlib import PurePosixPath

from pipeline.config.schema import CorpusConfig
from preprocess.corpora.base import Listing, Media, Source
from preprocess.corpora.findings import finding
from preprocess.corpora.folder import is_hidden
from preprocess.corpora.splits import Official, assign, read_lists
from preprocess.decode.frames import is_image

FRAMES = "frame_images_DB/"
FRAME_RATE = 24.0
_DEPTH = 2  # <identity>/<n>
OFFICIAL = Official({"train": 2593, "val": 633}, total=3425, about=True)
"""The paper's own split is not published; 3,425 videos are in the corpus."""


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """Each numbered folder of a person is a video; the person is the identity.

    `corpus.path` is the folder that holds `frame_images_DB`, or that one itself. Split lists name videos
    (`<identity>/<n>`) or whole identities.
    """
    folders = _folders(media, FRAMES) or _folders(media, "")
    rate = cfg.frame_rate or FRAME_RATE
    sources = tuple(
        Source(str(name), name.parts[0], folder, frame_rate=rate)
        for name, folder in sorted(folders.items(), key=lambda item: str(item[0]))
        if len(name.parts) == _DEPTH
    )
    astray = [folder or "./" for name, folder in folders.items() if len(name.parts) != _DEPTH]
    findings = finding("ytf", astray, "{n} (folder|folders) of images (is|are) not at <identity>/<n>: left out")
    lists = read_lists(media, cfg.splits)
    listing = Listing(sources, findings=tuple(findings))
    return assign("ytf", listing, lists, lambda source: (source.name, source.identity), OFFICIAL)


def _folders(media: Media, top: str) -> dict[PurePosixPath, str]:
    """Folders that hold images, by their names below `top`: those of videos are `<identity>/<n>`."""
    paths = (path for path in media.files(top) if is_image(path) and not is_hidden(path))
    found = dict.fromkeys(path.rpartition("/")[0] for path in paths)
    return {PurePosixPath(folder).relative_to(top): f"{folder}/" if folder else "" for folder in found}
