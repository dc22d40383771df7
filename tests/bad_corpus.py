"""A folder of good, odd and bad videos, made from one short clip of a real face, with what must become of each."""

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from drawn_videos import counting_frames, write_audio
from odd_videos import (
    H264,
    Coding,
    Frames,
    add_stream,
    encode,
    encode_streams,
    keep_share,
    overwrite,
    resized,
    scramble,
    turned,
    without_first_packets,
    write_frames,
)

Make = Callable[[Path, Frames], object]

PLAIN = "00 plain.mp4"
"""The clip itself: what comes out of good ones is compared with it."""
VANISHES = "zz vanishes.mp4"
"""To be deleted when the plan is there."""
X265 = {"x265-params": "log-level=none", "crf": "8", "preset": "ultrafast"}
FROM_KEY_FRAME = 8


@dataclass(frozen=True)
class Case:
    """One file of the corpus.

    Attributes:
        name: path in the corpus.
        make: puts it there, from the frames of the clip.
        frames: face frames that must come of it; 0 where it must be quarantined.
        reason: of the quarantine.
        first: frame of the clip that the first of them shows.
        differs: how much its crops may differ from those of the plain clip, in grey levels on average; None where
            other pictures are expected.
        in_bucket: whether object storage can hold such a thing.
    """

    name: str
    make: Make
    frames: int = 0
    reason: str = ""
    first: int = 0
    differs: float | None = None
    in_bucket: bool = True


def good(name: str, make: Make, **expected: Any) -> Case:
    """A file that must give face frames like those of the plain clip; keywords as in `Case`."""
    return Case(name, make, **{"frames": 16, "differs": 4.0, **expected})


def bad(name: str, reason: str, make: Make, in_bucket: bool = True) -> Case:
    """A file that must be quarantined."""
    return Case(name, make, reason=reason, in_bucket=in_bucket)


def coded(coding: Coding, **options: str) -> Make:
    """Writes the clip in some coding."""
    return lambda path, clip: encode(path, clip, coding, **options)


def rotated(degrees: int) -> Make:
    """Stores the clip turned, with the turn in the metadata."""
    return lambda path, clip: encode(path, turned(clip, degrees), Coding(rotation=degrees))


def _in_shape(width: int, height: int, coding: Coding) -> Make:
    return lambda path, clip: encode(path, resized(clip, width, height), coding)


def plain(path: Path, clip: Frames) -> Path:
    """Writes the clip as it is."""
    return encode(path, clip)


def _changing_size(path: Path, clip: Frames) -> None:
    first, second = path.with_suffix(".a"), path.with_suffix(".b")
    encode(first, clip, format="mpegts")
    encode(second, resized(clip, 640, 360), format="mpegts")
    path.write_bytes(first.read_bytes() + second.read_bytes())
    first.unlink()
    second.unlink()


def _begins_without_key_frame(codec: str) -> Make:
    def make(path: Path, clip: Frames) -> None:
        whole = path.with_name(f"whole{path.suffix}")
        encode(whole, clip, Coding(codec, options={"g": str(FROM_KEY_FRAME), "bf": "0", "b": "4M"}))
        without_first_packets(whole, path, 3)
        whole.unlink()

    return make


def _subtitled(path: Path, clip: Frames) -> None:
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,000 --> 00:00:00,400\n<b>hello</b>\n")
    with av.open(str(path), "w") as output, av.open(str(text)) as given:
        video = add_stream(output, clip)
        subtitle = output.add_stream_from_template(given.streams.subtitles[0])
        write_frames(output, video, clip)
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = subtitle
                output.mux(packet)


def _covered(path: Path, clip: Frames) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        output.add_attachment("cover.jpg", "image/jpeg", _jpeg(clip))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.time_base = 16000, Fraction(1, 16000)
        for part in (sound, None):
            output.mux(stream.encode(part))


def _jpeg(clip: Frames) -> bytes:
    return cv2.imencode(".jpg", clip[0][..., ::-1])[1].tobytes()


def _long_by_its_header(path: Path, clip: Frames) -> None:
    """A Matroska file that claims a thousand hours."""
    encode(path, clip)
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = struct.pack(">d", 3.6e9)
    path.write_bytes(data)


def _playlist(path: Path, clip: Frames) -> None:
    path.write_text(f"ffconcat version 1.0\nfile '{PLAIN}'\n")


def _unknown_codec(path: Path, clip: Frames) -> None:
    overwrite(encode(path, clip), b"avc1", b"xyz1")


def _socket(path: Path, clip: Frames) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _forbidden(path: Path, clip: Frames) -> None:
    if os.geteuid():
        plain(path, clip).chmod(0)
    else:
        path.symlink_to("/proc/sys/vm/compact_memory")  # even root may not read it


def _loop(path: Path, clip: Frames) -> None:
    path.parent.joinpath("folder that contains itself").symlink_to(path.parent, target_is_directory=True)
    path.symlink_to(path.name)


def _linked(path: Path, clip: Frames) -> None:
    path.symlink_to(encode(path.with_name("linked.data"), clip, format="mp4"))


GOOD = [
    good(PLAIN, plain),
    good("duplicate of plain.mp4", plain),
    good("an mp4 by its content.avi", coded(H264, format="mp4")),
    good("turned 90.mp4", rotated(90)),
    good("turned 180.mp4", rotated(180)),
    good("turned 270.mp4", rotated(270)),
    good("variable rate.mkv", coded(Coding(times=[33 * n + 200 * (n // 3) for n in range(16)]))),
    good("ten bits.mkv", coded(Coding("libx265", "yuv420p10le", X265))),
    good("ten bits 422.mov", coded(Coding("prores_ks", "yuv422p10le"))),
    good("odd size.mkv", _in_shape(321, 181, Coding(pix_fmt="yuv444p"))),
    good("wide pixels.mp4", _in_shape(160, 180, Coding(aspect=Fraction(2))), differs=8),
    good("tall pixels.mkv", _in_shape(320, 90, Coding(aspect=Fraction(1, 2))), differs=8),
    good("interlaced.mpg", coded(Coding("mpeg2video", options={"flags": "+ildct+ilme", "b": "8M"}))),
    good("grey.mkv", coded(Coding(pix_fmt="gray")), differs=30),
    good("alpha.mov", coded(Coding("qtrle", "argb"))),
    good("alpha.webm", coded(Coding("libvpx-vp9", "yuva420p", {"crf": "8", "b": "0", "cpu-used": "8"}))),
    good(
        "8k.mp4",
        lambda path, clip: encode(path, resized(clip[:8], 7680, 4320), Coding(options={"crf": "20"})),
        frames=8,
        differs=12,
    ),
    good("animated.gif", coded(Coding("gif", "rgb8")), differs=25),
    good("no duration.mkv", coded(H264, live="1")),
    good("no time stamps.h264", plain),
    good("starts late.mkv", coded(Coding(times=[3_600_000 + 33 * n for n in range(16)]), avoid_negative_ts="disabled")),
    good(
        "starts below zero.mp4", coded(Coding(times=[33 * n - 264 for n in range(16)])), frames=8, first=8, differs=12
    ),
    good("preview first.mkv", lambda path, clip: encode_streams(path, [(clip[:, :32, :32], H264), (clip, H264)])),
    good("subtitles.mkv", _subtitled),
    good("claims a thousand hours.mkv", _long_by_its_header),
    good("in pieces.mp4", coded(H264, movflags="frag_keyframe+empty_moov")),
    good("size changes.ts", _changing_size, frames=32, differs=None),
    good("no key frame first.ts", _begins_without_key_frame("libx264"), frames=8, first=8, differs=12),
    good("no key frame first.webm", _begins_without_key_frame("libvpx-vp9"), frames=8, first=8, differs=12),
    good("a folder.mp4/inside.mp4", plain),
    good("with  spaces and 'quotes' \"both\".mp4", plain),
    good("línea ünï 漢字 😀.mp4", plain),
    good("-rf --help.mp4", plain),
    good("$(touch x); `id` & %s {} *.mp4", plain),
    good("n" * 240 + ".mp4", plain),
    good("new\nline\tand tab.mp4", plain, in_bucket=False),
    good("back\\slash.mp4", plain, in_bucket=False),
    good("link.mp4", _linked, in_bucket=False),
]

BAD = [
    bad("zero bytes.mp4", "unreadable", lambda path, clip: path.write_bytes(b"")),
    bad("text.mp4", "unreadable", lambda path, clip: path.write_text("this is no video\n" * 50)),
    bad("noise.mkv", "unreadable", lambda path, clip: path.write_bytes(np.random.default_rng(0).bytes(9999))),
    bad("a playlist.mp4", "unreadable", _playlist),
    bad("unknown codec.mp4", "unreadable", _unknown_codec),
    bad("head only.mp4", "unreadable", lambda path, clip: keep_share(plain(path, clip), 0.6)),
    bad("head only.mkv", "damaged", lambda path, clip: keep_share(plain(path, clip), 0.6)),
    bad("head only.ts", "damaged", lambda path, clip: keep_share(plain(path, clip), 0.6)),
    bad(
        "head with index.mp4",
        "damaged",
        lambda path, clip: keep_share(encode(path, clip, movflags="faststart"), 0.6),
    ),
    bad("noise in the middle.mp4", "damaged", lambda path, clip: scramble(plain(path, clip), 0.4, 0.5)),
    bad(
        "noise in the middle.avi", "damaged", lambda path, clip: scramble(encode(path, clip, Coding("mpeg4")), 0.4, 0.5)
    ),
    bad("a photo.mp4", "too-short", lambda path, clip: path.write_bytes(_jpeg(clip))),
    bad("one frame.mp4", "too-short", lambda path, clip: encode(path, clip[:1])),
    bad("no face.mp4", "no-face", lambda path, clip: encode(path, counting_frames(16))),
    bad("tiny.mp4", "no-face", lambda path, clip: encode(path, resized(clip, 16, 16))),
    bad("sound only.mp4", "no-video", lambda path, clip: write_audio(path)),
    bad("sound with a cover.mkv", "no-video", _covered),
    bad(VANISHES, "unreadable", plain),
    bad("a pipe.mp4", "unreadable", lambda path, clip: os.mkfifo(path), in_bucket=False),
    bad("a socket.mp4", "unreadable", _socket, in_bucket=False),
    bad("endless.mp4", "unreadable", lambda path, clip: path.symlink_to("/dev/zero"), in_bucket=False),
    bad("forbidden.mp4", "unreadable", _forbidden, in_bucket=False),
    bad("links to nowhere.mp4", "unreadable", lambda path, clip: path.symlink_to("nowhere"), in_bucket=False),
    bad("links to itself.mp4", "unreadable", _loop, in_bucket=False),
]


def build(folder: Path, clip: Frames, cases: list[Case]) -> None:
    """Makes the files of the cases below a folder."""
    for case in cases:
        path = folder / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        case.make(path, clip)
