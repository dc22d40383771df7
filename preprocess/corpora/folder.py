"""A plain folder or s3:// prefix of videos and of folders of frame images, searched recursively."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from pipeline.config.schema import CorpusConfig
from preprocess.corpora.base import Listing, Media, Source
from preprocess.corpora.findings import finding
from preprocess.corpora.splits import assign, read_lists
from preprocess.decode.frames import is_image, series

VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".avc", ".avi", ".bik", ".dav"}
    | {".dif", ".divx", ".dv", ".evo", ".f4v", ".flv", ".gif", ".h261", ".h263", ".h264", ".h265", ".h266"}
    | {".hevc", ".insv", ".ismv", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2"}
    | {".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf"}
    | {".nut", ".nuv", ".obu", ".ogg", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".rv", ".tod", ".tp", ".trp"}
    | {".ts", ".vc1", ".viv", ".vob", ".vro", ".vvc", ".webm", ".wmv", ".wtv", ".y4m"}
)
"""What counts as a video by name; FFmpeg then goes by content. Other files (lists, subtitles) are left alone."""

FRAME_RATE = 25.0
"""Of folders of frame images, unless `corpus.frame_rate` says otherwise."""


def list_sources(media: Media, cfg: CorpusConfig) -> Listing:
    """Every video file, and every folder that directly holds a series of frame images and no video.

    Each is an identity of its own.
    """
    sources, others = [], []
    for folder, names in _by_folder(media.files()):
        videos = [name for name in names if is_video(name)]
        sources += [_video(folder + name) for name in videos]
        if videos or not any(is_image(name) for name in names):
            continue
        if series(names):
            sources.append(_frames(media, folder, cfg.frame_rate or FRAME_RATE))
        else:
            others.append(folder or "./")
    findings = finding(
        "folder", others, "{n} (folder holds|folders hold) images, but not the numbered frames of one video: left out"
    )
    listing = Listing(tuple(sorted(sources, key=lambda source: source.name)), findings=tuple(findings))
    return assign("folder", listing, read_lists(media, cfg.splits), lambda source: (source.name, source.identity))


def is_video(name: str) -> bool:
    """Whether a file counts as a video by its name, or by its path in the corpus."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and not is_hidden(name)


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder on the way to it, is hidden: a trash, a thumbnail, what macOS puts beside files."""
    return any(part.startswith(".") for part in PurePosixPath(path).parts)


def without_suffix(name: str) -> str:
    """A name without a video's suffix; other names as they are."""
    return str(PurePosixPath(name).with_suffix("")) if is_video(name) else name


def _by_folder(files: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for path in files:
        if is_hidden(path):
            continue
        folder, separator, name = path.rpartition("/")
        folders[folder + separator].append(name)
    yield from folders.items()


def _video(path: str) -> Source:
    return Source(path, without_suffix(path), path)


def _frames(media: Media, folder: str, rate: float) -> Source:
    name = folder.removesuffix("/") or PurePosixPath(media.url).name
    identity = without_suffix(name)
    # In a bucket a video `a.mp4` and the frames `a.mp4/1.jpg` … may lie side by side.
    return Source(f"{name}/" if is_video(name) else name, identity, folder or "./", frame_rate=rate)
