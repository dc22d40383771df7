"""Picture sections of the report that ask a checkpoint: reconstructions, attention, evidence for attributes.

Shapes: B clips, T tubelet frames, S×S pixels, M hidden cubes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.attention import attention_maps
from eval.features import best_device
from eval.gradcam import grad_cam
from eval.heads import Output, read_head
from eval.heat import over_frames
from eval.job import eval_config
from eval.loading import open_checkpoint
from eval.pictures import Image, column, heat_columns, mask_frame
from eval.report.figures import (
    STRATEGIES,
    WIDTH,
    Figure,
    figure,
    mask_grids,
    name_of,
    strategy_title,
    track_clips,
    tubelet_frames,
)
from eval.tasks.reconstruction import Reconstruction, psnr, reconstruct
from pipeline.checkpoints import Checkpoint
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.storage import Store
from train.data.batch import Batch
from train.model import MaskedAutoencoder

CLIPS, ATTRIBUTES = 4, 4


@dataclass(frozen=True)
class ModelFigures:
    """What a checkpoint makes of held-out clips of up to four tracks; empty where there is nothing to ask or to show.

    Attributes:
        reconstructions: each clip under the run's masks.
        strategies: the first clip under the masks of each strategy.
        attention: each clip with the encoder's attention, rolled out.
        attributes: the best answered ones, each on the clip that shows it most.
    """

    reconstructions: Sequence[Figure] = ()
    strategies: Sequence[Figure] = ()
    attention: Sequence[Figure] = ()
    attributes: Sequence[Figure] = ()


@dataclass(frozen=True)
class Answer:
    """An output of a task's head, with the area under its ROC curve."""

    task: str
    auc: float
    output: Output


def model_figures(
    cfg: Config, run: Store, checkpoint: Checkpoint, dataset: Dataset, store: Store, *, results: Mapping[str, Any]
) -> ModelFigures:
    """All of them, with the weights fetched once.

    Args:
        cfg: the run.
        run: its folder.
        checkpoint: the one to ask.
        dataset: with held-out samples.
        store: where the dataset lies.
        results: of the checkpoint, by task; None where a task was not run.
    """
    with open_checkpoint(run, checkpoint) as (model, trained):
        here = eval_config(cfg, trained)
        model.to(best_device())
        batch = track_clips(here, dataset, store, CLIPS)
    samples = {sample.key: sample for sample in dataset.samples}
    names = [name_of(samples[key]) for key in batch.keys]
    found = {
        strategy: reconstruct(model, _with_strategy(here, strategy), batch)
        for strategy in {here.data.mask.strategy, *STRATEGIES}
    }
    answers = best_answers(run, checkpoint, results, ATTRIBUTES)
    return ModelFigures(
        _reconstructions(model, batch, found[here.data.mask.strategy], names),
        [_strategy(model, batch, found[strategy], here, strategy) for strategy in STRATEGIES],
        _attention(model, batch, names),
        [_attribute(model, batch, answer, names) for answer in answers],
    )


def best_answers(run: Store, checkpoint: Checkpoint, results: Mapping[str, Any], most: int) -> list[Answer]:
    """The outputs with the largest area under the ROC curve, best first, of all tasks that published a head.

    An area is ``per_label.<name>.auc`` of a task's result. Of an attribute that several tasks answer, the best counts.
    """
    answers = []
    for task, result in results.items():
        areas = {name: row.get("auc") for name, row in (result or {}).get("per_label", {}).items()}
        head = read_head(run, checkpoint, task) if areas else None
        if head is not None:
            known = [name for name in head.names if areas.get(name) is not None]
            answers += [Answer(task, areas[name], head.output(name)) for name in known]
    answers.sort(key=lambda answer: (-answer.auc, answer.output.name))
    best: dict[str, Answer] = {}
    for answer in answers:
        best.setdefault(answer.output.name, answer)
    return list(best.values())[:most]


def _with_strategy(cfg: Config, strategy: str) -> Config:
    mask = cfg.data.mask.model_copy(update={"strategy": strategy})
    return cfg.model_copy(update={"data": cfg.data.model_copy(update={"mask": mask})})


def _reconstructions(
    model: MaskedAutoencoder, batch: Batch, found: Reconstruction, names: Sequence[str]
) -> list[Figure]:
    figures = []
    for index, (name, error) in enumerate(zip(names, found.errors("checkpoint").mean(1).tolist(), strict=True)):
        columns = [column(images, WIDTH) for images in zip(*_rows(model, batch, found, index), strict=True)]
        figures.append(figure(name, f"Error over the hidden cubes of this clip: {_error_text(error)}.", columns, name))
    return figures


def _strategy(model: MaskedAutoencoder, batch: Batch, found: Reconstruction, cfg: Config, strategy: str) -> Figure:
    errors_B = found.errors("checkpoint").mean(1)
    caption = f"This clip: {_error_text(float(errors_B[0]))}."
    if len(errors_B) > 1:
        caption += f" The {len(errors_B)} clips above: {_error_text(float(errors_B.mean()))}."
    _, masked, filled = _rows(model, batch, found, 0)
    columns = [column(images, WIDTH) for images in zip(masked, filled, strict=True)]
    return figure(strategy_title(strategy, cfg), caption, columns, f"reconstruction, {strategy}")


def _rows(model: MaskedAutoencoder, batch: Batch, found: Reconstruction, index: int) -> tuple[list[Image], ...]:
    """Of one clip each tubelet's first frame: original, what the model saw, that with its hidden part reconstructed."""
    frames = tubelet_frames(batch.clips_BCTHW[index])
    visible_THW = mask_grids(found.mask_BN[index], model.geometry.side)
    masked = [mask_frame(frame, visible) for frame, visible in zip(frames, visible_THW, strict=True)]
    return frames, masked, tubelet_frames(found.clips("checkpoint", model.geometry)[index])


def _attention(model: MaskedAutoencoder, batch: Batch, names: Sequence[str]) -> list[Figure]:
    heat_BTSS = _heat(model, attention_maps(model, batch.clips_BCTHW))
    figures = []
    for name, clip_CTSS, heat_TSS in zip(names, batch.clips_BCTHW, heat_BTSS, strict=True):
        columns = heat_columns(tubelet_frames(clip_CTSS), heat_TSS, WIDTH)
        figures.append(figure(name, "", columns, f"attention, {name}"))
    return figures


def _attribute(model: MaskedAutoencoder, batch: Batch, answer: Answer, names: Sequence[str]) -> Figure:
    clips_BCTSS = batch.clips_BCTHW
    with torch.inference_mode():
        scores_B = answer.output.score(model.encode(clips_BCTSS, pool=True))
    index = int(scores_B.argmax())
    [heat_TSS] = _heat(model, grad_cam(model, clips_BCTSS[index : index + 1], answer.output.weight))
    columns = heat_columns(tubelet_frames(batch.clips_BCTHW[index]), heat_TSS, WIDTH)
    caption = f"{answer.task}, AUC {answer.auc:.2f}. Shown: {names[index]}, where its score is {scores_B[index]:+.2f}."
    return figure(answer.output.name, caption, columns, f"evidence for {answer.output.name}")


def _heat(model: MaskedAutoencoder, maps_BTHW: torch.Tensor) -> NDArray[np.float32]:
    """Maps over the pixels of the first frame of each tubelet: (B, T, S, S)."""
    heat: NDArray[np.float32] = over_frames(maps_BTHW, model.geometry)[:, :: model.geometry.tubelet].cpu().numpy()
    return heat


def _error_text(mse: float) -> str:
    return f"MSE {mse:.4f}, PSNR {psnr(mse):.1f} dB"
