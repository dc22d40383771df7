"""Drawn corpora in the true layouts, with the same small file as every video."""

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preprocess.corpora.celebv_hq import ATTRIBUTES

APPEARANCE, ACTION = (list(ATTRIBUTES[kind]) for kind in ("appearance", "action"))


def put(path: Path, content: Path | bytes | str = b"") -> Path:
    """A file with the content of another, or the content itself; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copy(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def put_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A CSV table with the columns of its first row."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def put_ytf(folder: Path, videos: Iterable[str], frames: Sequence[bytes]) -> Path:
    """YouTube Faces: videos are named `<identity>/<n>`; frame numbers begin anywhere."""
    for video in videos:
        number = video.rpartition("/")[2]
        for place, frame in enumerate(frames, 95):
            put(folder / f"frame_images_DB/{video}/{number}.{place}.jpg", frame)
        identity = video.partition("/")[0]
        put(folder / f"frame_images_DB/{identity}.labeled_faces.txt", "not a frame")
    return folder


def celebv_info(clips: Iterable[str]) -> dict[str, Any]:
    """celebvhq_info.json of some clips."""
    return {
        "meta_info": {"appearance_mapping": APPEARANCE, "action_mapping": ACTION},
        "clips": {
            clip: {
                "ytb_id": clip.rpartition("_")[0],
                "duration": {"start_sec": 81.62, "end_sec": 86.17},
                "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
                "attributes": {
                    "appearance": [1] + [0] * 39,
                    "action": [0] * 34 + [1],
                    "emotion": {"sep_flag": False, "labels": "neutral"},
                },
                "version": "v0.1",
            }
            for clip in clips
        },
    }


def put_ffpp(folder: Path, pairs: Mapping[str, Sequence[tuple[str, str]]], video: Path | bytes = b"") -> Path:
    """FaceForensics++ in c23 with four manipulations of each pair, and the split lists."""
    for split, listed in pairs.items():
        put(folder / f"splits/{split}.json", json.dumps(listed))
        for one, other in listed:
            for number in (one, other):
                put(folder / f"original_sequences/youtube/c23/videos/{number}.mp4", video)
            for method in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
                for name in (f"{one}_{other}", f"{other}_{one}"):
                    put(folder / f"manipulated_sequences/{method}/c23/videos/{name}.mp4", video)
                    put(folder / f"manipulated_sequences/{method}/masks/videos/{name}.mp4", video)
    return folder


def put_lrs2(folder: Path, lists: Mapping[str, Sequence[str]], video: Path | bytes = b"") -> Path:
    """LRS2 with its lists; the lines of test.txt end in a mark."""
    for split, names in lists.items():
        part = "pretrain" if split == "pretrain" else "main"
        put(folder / f"{split}.txt", "".join(f"{name}{' NF' if split == 'test' else ''}\n" for name in names))
        for name in names:
            put(folder / f"mvlrs_v1/{part}/{name}.mp4", video)
            put(folder / f"mvlrs_v1/{part}/{name}.txt", f"Text:  SENTENCE OF {name}\nConf:  4\n")
    return folder
