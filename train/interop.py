"""Weights under other names: those of the published MARLIN package and of VideoMAE, which MARLIN starts from.

All functions take and give state dicts, tensors by name; nothing is read or written. An encoder alone gives an encoder
alone. Positions are fixed tables (`train.model.sincos_table`) and never taken over.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import UsageError
from train.model import Geometry, sincos_table
from train.sizes import CHANNELS

State = dict[str, Tensor]
Layout = Literal["own", "official", "videomae", "hugging-face"]

# Their part of a name, ours. With a dot in front it stands anywhere, else at the beginning; rules are applied in order.
_Rules = tuple[tuple[str, str], ...]
_OFFICIAL: _Rules = (
    ("encoder.patch_embedding.projection.", "embed."),
    ("enc_dec_proj.", "enc_to_dec."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.head.", "head."),
    (".mlp.layers.0.linear.", ".mlp.0."),
    (".mlp.layers.1.linear.", ".mlp.2."),
)
_VIDEOMAE: _Rules = (
    ("encoder.patch_embed.proj.", "embed."),
    ("encoder_to_decoder.", "enc_to_dec."),
    ("decoder.head.", "head."),
    (".mlp.fc1.", ".mlp.0."),
    (".mlp.fc2.", ".mlp.2."),
)
_HUGGING_FACE: _Rules = (
    ("videomae.embeddings.patch_embeddings.projection.", "embed."),
    ("videomae.encoder.layer.", "encoder.blocks."),
    ("videomae.layernorm.", "encoder.norm."),
    ("decoder.decoder_layers.", "decoder.blocks."),
    ("encoder_to_decoder.", "enc_to_dec."),
    ("decoder.head.", "head."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.attention.", ".attn."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.0."),
    (".output.dense.", ".mlp.2."),
)
_MARKS: dict[Layout, str] = {
    "own": "embed.weight",
    "official": "encoder.patch_embedding.projection.weight",
    "videomae": "encoder.patch_embed.proj.weight",
    "hugging-face": "videomae.embeddings.patch_embeddings.projection.weight",
}
_ENCODER = ("embed.", "encoder.")
_POSITIONS = ("pos_embed", "position_embeddings")
_PARTS = ("query", "key", "value")


def from_official(state: Mapping[str, Tensor]) -> State:
    """Weights of the `marlin-pytorch` package: full, encoder only, or of a Lightning checkpoint of its training.

    The critic of a training (`discriminator.…`) is left out.
    """
    kept = {name: value for name, value in state.items() if not name.startswith("discriminator.")}
    return _flat_embedding(_renamed(kept, _OFFICIAL))


def to_official(state: Mapping[str, Tensor], geometry: Geometry) -> State:
    """Weights as the `marlin-pytorch` package loads them, with its tables of positions; of an encoder alone, too.

    Args:
        state: our weights.
        geometry: clip and cube that they were trained on.
    """
    theirs = {_rename(name, ((ours, official) for official, ours in _OFFICIAL)): value for name, value in state.items()}
    embedding = _MARKS["official"]
    theirs[embedding] = _as_convolution(theirs[embedding], geometry)
    theirs["encoder.pos_embedding.emb"] = sincos_table(geometry.tokens, len(theirs[embedding]))[None]
    if "mask_token" in state:
        theirs["decoder.pos_embedding.emb"] = sincos_table(geometry.tokens, state["mask_token"].shape[-1])[None]
    return theirs


def from_videomae(state: Mapping[str, Tensor]) -> State:
    """Weights of a VideoMAE pretraining, under its original names or those of Hugging Face's `VideoMAEForPreTraining`.

    VideoMAE's decoder orders the values of a cube by time, row, column, channel; its last layer's are sorted as ours.
    """
    if detect_layout(state) == "hugging-face":
        ours = _renamed(_prefixed(state), _HUGGING_FACE)
        for query in [name for name in ours if name.endswith(".attn.query.weight")]:
            block = query.removesuffix("query.weight")
            ours[f"{block}qkv.weight"] = torch.cat([ours.pop(f"{block}{part}.weight") for part in _PARTS])
    else:
        ours = _renamed(state, _VIDEOMAE)
    for name in ("head.weight", "head.bias"):
        if name in ours:
            ours[name] = torch.cat([ours[name][channel::CHANNELS] for channel in range(CHANNELS)])
    return _flat_embedding(ours)


def to_hugging_face(state: Mapping[str, Tensor], geometry: Geometry) -> State:
    """Weights as Hugging Face's `VideoMAEForPreTraining` loads them; an encoder alone as its `VideoMAEModel` does.

    Args:
        state: our weights.
        geometry: clip and cube that they were trained on.
    """
    rules = [(ours, theirs) for theirs, ours in reversed(_HUGGING_FACE)]
    theirs: State = {}
    for name, value in state.items():
        if name.endswith(".attn.qkv.weight"):
            block = _rename(name.removesuffix("qkv.weight"), rules)
            theirs |= {f"{block}{part}.weight": each for part, each in zip(_PARTS, value.chunk(3), strict=True)}
        else:
            theirs[_rename(name, rules)] = value
    for name in ("decoder.head.weight", "decoder.head.bias"):
        if name in theirs:
            theirs[name] = torch.stack(theirs[name].chunk(CHANNELS), 1).flatten(0, 1)
    embedding = _MARKS["hugging-face"]
    theirs[embedding] = _as_convolution(theirs[embedding], geometry)
    if "mask_token" not in state:
        theirs = {name.removeprefix("videomae."): value for name, value in theirs.items()}
    return {name: value.contiguous() for name, value in theirs.items()}


def detect_layout(state: Mapping[str, Tensor]) -> Layout:
    """Whose names these are.

    Raises:
        UsageError: nobody's that are known here.
    """
    names = _prefixed(state)
    for layout, mark in _MARKS.items():
        if mark in names:
            return layout
    some = ", ".join(sorted(state)[:3])
    raise UsageError(f"these are weights of no known model (names like {some}): see docs/weights.md")


def to_own(state: Mapping[str, Tensor]) -> tuple[Layout, State]:
    """Weights under our names, and whose names they had.

    Raises:
        UsageError: they are weights of another model.
    """
    layout = detect_layout(state)
    converters: dict[Layout, Callable[[Mapping[str, Tensor]], State]] = {
        "own": dict,
        "official": from_official,
        "videomae": from_videomae,
        "hugging-face": from_videomae,
    }
    return layout, converters[layout](state)


def is_encoder(name: str) -> bool:
    """Whether one of our names belongs to the encoder."""
    return name.startswith(_ENCODER)


def _renamed(state: Mapping[str, Tensor], rules: _Rules) -> State:
    return {
        _rename(name, rules): value for name, value in state.items() if not any(part in name for part in _POSITIONS)
    }


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for before, after in rules:
        if before.startswith("."):
            name = name.replace(before, after)
        elif name.startswith(before):
            name = after + name.removeprefix(before)
    return name


def _prefixed(state: Mapping[str, Tensor]) -> State:
    """Hugging Face's bare `VideoMAEModel` has no first part in its names."""
    bare = "embeddings.patch_embeddings.projection.weight" in state
    return {f"videomae.{name}" if bare else name: value for name, value in state.items()}


def _as_convolution(embedding: Tensor, geometry: Geometry) -> Tensor:
    return embedding.reshape(-1, CHANNELS, geometry.tubelet, geometry.patch, geometry.patch)


def _flat_embedding(state: State) -> State:
    """The first layer as a matrix: a convolution that steps by whole cubes is one on their values, in our order."""
    return {name: value.flatten(1) if name == "embed.weight" else value for name, value in state.items()}
