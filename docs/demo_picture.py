"""Make docs/demo.png and docs/explained.png: the demo's configuration on a face that is in the public domain.

NASA's portrait of Eileen Collins comes with scikit-image; a virtual camera moves over it for twelve seconds. Run from
the repository after `make setup`: `.venv/bin/python docs/demo_picture.py` (about three minutes on two cores).
"""

import tempfile
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.data import astronaut

from eval.explain import explain_video
from eval.loading import open_checkpoint
from eval.pictures import column, mask_frame
from eval.tasks.reconstruction import clips_for, reconstruct
from pipeline.assets import pull_models
from pipeline.checkpoints import list_checkpoints
from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.layout import dataset_store, run_store
from pipeline.local import run_stages
from pipeline.log import setup_logging
from preprocess.regions import overlay

Image = NDArray[np.uint8]
SECONDS, RATE, SIDE = 12, 25, 320


def film(path: Path) -> None:
    """The portrait seen by a camera that sways and zooms."""
    portrait = astronaut()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in range(SECONDS * RATE):
            phase = 2 * np.pi * index / RATE
            zoom = 1.25 + 0.15 * np.sin(0.31 * phase)
            camera = cv2.getRotationMatrix2D((225.0, 120.0), 6 * np.sin(0.43 * phase), zoom)
            camera[:, 2] += (
                SIDE / 2 - np.array([225.0, 120.0]) + 12 * np.array([np.sin(0.37 * phase), np.cos(0.29 * phase)])
            )
            shot = cv2.warpAffine(portrait, camera, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(stream.encode())


def draw(cfg: Config) -> Image:
    """One held-out clip: frames, regions, what the encoder sees, and the reconstruction; a column each tubelet."""
    run, store = run_store(cfg), dataset_store(cfg)
    with open_checkpoint(run, list_checkpoints(run)[-1]) as (model, _):
        (batch,) = clips_for(cfg, load_dataset(store), store, split="val", limit=1)
        result = reconstruct(model, cfg, batch)
    (sample,) = (sample for sample in load_dataset(store).samples if sample.key == batch.keys[0])
    png = store.read_range(sample.shard, *sample.parts["labels.png"])
    size = cfg.preprocess.size
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED).reshape(-1, size, size)
    visible = result.mask_BN[0].reshape(-1, size // cfg.model.patch, size // cfg.model.patch).numpy()
    columns = []
    for tubelet, (frame, guess) in enumerate(
        zip(_images(batch.clips_BCTHW), _images(result.clips("checkpoint", model.geometry)), strict=True)
    ):
        regions = overlay(frame, labels[batch.starts[0] + 2 * tubelet * cfg.data.stride])
        columns.append(column([frame, regions, mask_frame(frame, visible[tubelet]), guess], 140))
    return np.hstack(columns)


def _images(clips_BCTHW: torch.Tensor) -> list[Image]:
    """The first frame of each tubelet of the first clip."""
    return [
        (frame.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for frame in clips_BCTHW[0, :, ::2].unbind(1)
    ]


def main() -> None:
    """Film, run the demo's stages on the film, draw what it learned."""
    setup_logging()
    pull_models()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "videos"
        corpus.mkdir()
        film(corpus / "portrait.mp4")
        cfg = load_config(
            "demo", [f"storage.root={folder}/out", f"corpus.path={corpus}", "eval.tasks=[reconstruction]"]
        )
        run_stages(cfg)
        picture = draw(cfg)
        explained = Path(__file__).with_name("explained.png")
        explain_video(str(corpus / "portrait.mp4"), run_store(cfg).url, explained)
    cv2.imwrite(str(Path(__file__).with_name("demo.png")), picture[..., ::-1])


if __name__ == "__main__":
    main()
