"""Weights of others: the published network computes the same with ours, and each layout finds its way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from published import published_network
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import UsageError
from train.cubes import patchify
from train.init import start_from
from train.interop import detect_layout, from_official, from_videomae, is_encoder, to_official, to_own
from train.model import Geometry, MaskedAutoencoder, build_model, split_indices
from train.sizes import SIZES, ViTSize

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = Geometry(frames=16, size=16, patch=8)  # the published decoder takes 16 frames alone


def small_model(seed: int = 0) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    model = MaskedAutoencoder(SMALL, ViTSize(32, 2, 2), ViTSize(16, 1, 2))
    for parameter in model.parameters():  # biases and norms too, which start as constants
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def build_official(encoder: ViTSize, decoder: ViTSize, geometry: Geometry, *, encoder_only: bool = False) -> nn.Module:
    model = published_network(encoder, decoder, geometry, encoder_only=encoder_only)
    for name, parameter in model.named_parameters():  # biases and norms too, which start as constants
        if "pos_embedding" not in name:
            nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.05)
    return model.eval()


@pytest.mark.parametrize(
    ("size", "geometry"),
    [
        ("tiny", Geometry(size=64)),
        pytest.param("small", Geometry(), marks=pytest.mark.slow),
        pytest.param("base", Geometry(), marks=pytest.mark.slow),
        pytest.param("large", Geometry(size=64), marks=pytest.mark.slow),
        pytest.param("large", Geometry(), marks=pytest.mark.heavy),
    ],
)
def test_equals_the_published_network_for_the_same_weights(size: str, geometry: Geometry) -> None:
    torch.manual_seed(1)
    sizes = SIZES[size]
    theirs = build_official(sizes.encoder, sizes.decoder, geometry)
    ours = build_model(size, geometry).eval()
    ours.load_state_dict(from_official(theirs.state_dict()))
    clips = torch.rand(1, 3, geometry.frames, geometry.size, geometry.size)
    keep = geometry.tokens // 10
    order = torch.rand(1, geometry.tokens).argsort(1)
    mask = torch.zeros(1, geometry.tokens, dtype=torch.bool).scatter_(1, order[:, :keep], True)
    with torch.no_grad():
        expected = theirs(clips, mask)
        got = ours(patchify(clips, 2, 16), *split_indices(mask, keep))
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
        assert expected.std() > 0.1  # the comparison would see a difference
        torch.testing.assert_close(ours.encode(clips), theirs.extract_features(clips, True), atol=1e-4, rtol=0)
        pooled = theirs.extract_features(clips, False)
        torch.testing.assert_close(ours.encode(clips, pool=True), pooled, atol=1e-4, rtol=0)


@pytest.mark.parametrize("encoder_only", [False, True])
def test_the_published_network_takes_ours_and_gives_it_back(encoder_only: bool) -> None:
    state = {k: v for k, v in small_model().state_dict().items() if is_encoder(k) or not encoder_only}
    theirs = build_official(ViTSize(32, 2, 2), ViTSize(16, 1, 2), SMALL, encoder_only=encoder_only)
    before = {name: value.clone() for name, value in theirs.state_dict().items() if "pos_embedding" in name}
    theirs.load_state_dict(to_official(state, SMALL))
    for name, table in before.items():
        torch.testing.assert_close(theirs.state_dict()[name], table)
    assert_equal(from_official(theirs.state_dict()), state)


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=0, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def videomae_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as VideoMAE saves them, name by name."""
    names = {"enc_to_dec.weight": "encoder_to_decoder.weight", "mask_token": "mask_token"}
    names |= {f"embed.{part}": f"encoder.patch_embed.proj.{part}" for part in ("weight", "bias")}
    names |= {f"head.{part}": f"decoder.head.{part}" for part in ("weight", "bias")}
    theirs = {}
    for name, value in state.items():
        named = names.get(name, name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.2.", ".mlp.fc2."))
        theirs[named] = value
        if name == "embed.weight":
            theirs[named] = value.reshape(-1, 3, SMALL.tubelet, SMALL.patch, SMALL.patch)
        if name.startswith("head."):  # ours: channel, time, row, column; theirs: time, row, column, channel
            theirs[named] = value.reshape(3, SMALL.cube // 3, -1).transpose(0, 1).reshape(value.shape)
    return theirs


def hugging_face_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as `VideoMAEForPreTraining` saves them."""
    theirs = {}
    for original, value in videomae_state(state).items():
        name = original
        for before, after in (
            ("encoder.patch_embed.proj", "videomae.embeddings.patch_embeddings.projection"),
            ("encoder.blocks", "videomae.encoder.layer"),
            ("encoder.norm", "videomae.layernorm"),
            ("decoder.blocks", "decoder.decoder_layers"),
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("attn.proj", "attention.output.dense"),
            ("attn.q_bias", "attention.attention.q_bias"),
            ("attn.v_bias", "attention.attention.v_bias"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            name = name.replace(before, after)
        if name.endswith("attn.qkv.weight"):
            for part, matrix in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[name.replace("attn.qkv", f"attention.attention.{part}")] = matrix
        else:
            theirs[name] = value
    theirs["position_embeddings"] = torch.zeros(1, SMALL.tokens, 16)
    return theirs


def official_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return to_official(state, SMALL) | {"discriminator.layers.0.linear.weight": torch.zeros(2, 2)}


LAYOUTS = {
    "own": dict,
    "official": official_state,
    "videomae": videomae_state,
    "hugging-face": hugging_face_state,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_becomes_ours(layout: str) -> None:
    state = small_model().state_dict()
    assert to_own(LAYOUTS[layout](state))[0] == layout
    assert_equal(to_own(LAYOUTS[layout](state))[1], state)


def test_the_bare_encoder_of_hugging_face_has_shorter_names() -> None:
    state = {name: value for name, value in small_model().state_dict().items() if is_encoder(name)}
    theirs = hugging_face_state(state)
    bare = {name.removeprefix("videomae."): value for name, value in theirs.items() if name.startswith("videomae.")}
    assert detect_layout(bare) == "hugging-face"
    assert_equal(from_videomae(bare), state)


def test_a_decoder_of_videomae_gives_its_channels_in_our_order() -> None:
    """Its target is `rearrange(clip, 'c (t p) (h q) (w r) -> (t h w) (p q r c)')`."""
    model, clip = small_model(), torch.rand(1, 3, SMALL.frames, 16, 16)
    cubes = patchify(clip, SMALL.tubelet, SMALL.patch)
    theirs = cubes.unflatten(-1, (3, -1)).transpose(-1, -2).flatten(-2)
    state = videomae_state(model.state_dict())
    state["decoder.head.bias"] = theirs[0, 3]  # a decoder that knows one cube by heart
    state["decoder.head.weight"] = torch.zeros_like(state["decoder.head.weight"])
    model.load_state_dict(from_videomae(state))
    with torch.no_grad():
        guess = model(cubes, torch.tensor([[0]]), torch.tensor([[3]]))
    torch.testing.assert_close(guess[0, 0], cubes[0, 3])


def write(path: Path, content: Any) -> str:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("marlin.pt", official_state),
        ("epoch=3.ckpt", lambda state: {"epoch": 3, "state_dict": official_state(state), "optimizer_states": []}),
        ("checkpoint.pth", lambda state: {"model": videomae_state(state)}),
        ("ds.pt", lambda state: {"module": {f"module.{k}": v for k, v in videomae_state(state).items()}}),
        ("model.safetensors", hugging_face_state),
        ("model.safetensors", dict),
    ],
)
def test_files_are_read_whatever_they_are_wrapped_in(tmp_path: Path, name: str, wrap: Any) -> None:
    source, model = small_model(1), small_model(2)
    start_from(write(tmp_path / name, wrap(source.state_dict())), model)
    assert_equal(model.state_dict(), source.state_dict())


def test_an_encoder_alone_leaves_the_decoder_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, model = small_model(1), small_model(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encoder = {name: value for name, value in source.state_dict().items() if is_encoder(name)}
    with caplog.at_level("INFO"):
        start_from(write(tmp_path / "encoder.pt", to_official(encoder, SMALL)), model)
    after = model.state_dict()
    assert_equal({name: after[name] for name in encoder}, encoder)
    rest = before.keys() - encoder.keys()
    assert_equal({name: after[name] for name in rest}, {name: before[name] for name in rest})
    assert "the decoder is fresh" in caplog.text


class Evil:
    """Runs code when it is unpickled by whoever lets it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", {"weight": torch.zeros(2)}, "weights of no known model"),
        ("a.pt", {k: v * torch.nan for k, v in small_model().state_dict().items()}, "hold no finite numbers"),
        ("a.pt", b"no file of PyTorch", "no whole PyTorch file"),
        ("a.pt", torch.zeros(2), "holds no weights by name"),
        ("a.ckpt", {"state_dict": Evil()}, "holds more than tensors"),
        ("a.pt", b"", "no whole PyTorch file"),
        ("a.pt", b"PK\x03\x04 cut off", "no whole PyTorch file"),
        ("a.safetensors", b"\x00" * 20, "no whole safetensors file"),
        ("gone.pt", None, "no such file"),
        ("no-run", None, "is no weights file"),
    ],
)
def test_what_is_none_is_refused_in_one_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message) as caught:
        start_from(str(path), small_model())
    assert str(caught.value).startswith(f"model.init={path}")
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wider = MaskedAutoencoder(SMALL, ViTSize(64, 2, 2), ViTSize(16, 1, 2))
    deeper = MaskedAutoencoder(SMALL, ViTSize(32, 3, 2), ViTSize(16, 1, 2))
    shallow = MaskedAutoencoder(SMALL, ViTSize(32, 1, 2), ViTSize(16, 1, 2))
    for other, message in (
        (wider, r"has in another shape \d+ \(.*instead of"),
        (deeper, r"has too many 13 \(encoder\.blocks\.2"),
        (shallow, r"lacks 13 \(encoder\.blocks\.1.*, …\); check model\.size"),
    ):
        path = write(tmp_path / "other.safetensors", other.state_dict())
        model = small_model()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(UsageError, match=message):
            start_from(path, model)
        assert_equal(model.state_dict(), before)
