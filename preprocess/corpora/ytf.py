"""YouTube Faces: `frame_images_DB/<identity>/<n>/<n>.<frame>.jpg`."""

from collections import defaultdict
from pathlib import PurePosixPath

from pipeline.config.schema import CorpusConfig
from preprocess.corpora.base import Listing, Media, Source
from preprocess.corpora.splits import Official, assign, read_lists
from preprocess.decode.frames import is_image

FRAMES = "frame_images_DB/"
FRAME_RATE = 24.0
OFFICIAL = Official({"train": 2593, "val": 633}, total=3425, about=True)
"""The paper's own split is not published; 3,425 videos are in the corpus."""


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """Each numbered folder of a person is a video; the person is the identity.

    `corpus.path` is the folder that holds `frame_images_DB`, or that one itself. Split lists name videos
    (`<identity>/<n>`) or whole identities.
    """
    videos = _videos(media, FRAMES) or _videos(media, "")
    rate = cfg.frame_rate or FRAME_RATE
    sources = tuple(
        Source(name, name.partition("/")[0], folder, frame_rate=rate) for name, folder in sorted(videos.items())
    )
    lists = read_lists(media, cfg.splits)
    return assign("ytf", Listing(sources), lists, lambda source: (source.name, source.identity), OFFICIAL)


def _videos(media: Media, top: str) -> dict[str, str]:
    """Folders of videos by their names, `<identity>/<n>`."""
    images: defaultdict[str, int] = defaultdict(int)
    for path in media.files(top):
        folder = PurePosixPath(path.removeprefix(top)).parent
        if len(folder.parts) == 2 and is_image(path):
            images[str(folder)] += 1
    return {name: f"{top}{name}/" for name in images}
