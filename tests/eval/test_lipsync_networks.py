"""Generators of every face encoder: what they see, what they give, and as files."""

from pathlib import Path

import pytest
import torch

from eval.lipsync.critic import VisualCritic, critic_loss, fooling_loss
from eval.lipsync.generator import Form, Generator
from eval.lipsync.weights import generator_bytes, read_generator
from pipeline.config.evaluation import LipEncoder
from pipeline.errors import MarlinError, UsageError

FORMS = {
    "wav2lip": Form("wav2lip", 64, 5, 2, 0.1),
    "vit": Form("vit", 64, 16, 2, 0.0, "tiny", 8),
    "marlin": Form("marlin", 96, 4, 2, 0.0, "tiny", 16, "imagenet"),
}


def given(form: Form, clips: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    faces = torch.rand(2, clips, form.frames, 3, form.size, form.size, generator=dice)
    return faces[0], faces[1], torch.rand(clips, form.frames, 80, 16, generator=dice)


def awake(form: Form) -> Generator:
    """A generator whose norms have seen activations: without them a fresh one says the same to everything."""
    torch.manual_seed(0)
    generator = Generator(form).train()
    with torch.no_grad():
        for _ in range(20):
            generator(*given(form))
    return generator.eval()


@pytest.mark.parametrize("encoder", FORMS)
def test_draws_faces_of_all_frames_and_never_sees_the_lower_half(encoder: LipEncoder) -> None:
    form = FORMS[encoder]
    generator = awake(form)
    target, reference, mel = given(form)
    with torch.inference_mode():
        drawn = generator(target, reference, mel)
        hidden = target.clone()
        hidden[..., form.size // 2 :, :] = 0.5
        assert drawn.shape == target.shape
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        torch.testing.assert_close(generator(hidden, reference, mel), drawn)
        for other in ((target + 0.3, reference, mel), (target, reference + 0.3, mel), (target, reference, mel + 1)):
            assert float((generator(*other) - drawn).abs().max()) > 1e-5


def test_convolutions_see_frames_alone_and_a_transformer_all_of_a_clip() -> None:
    for encoder, alone in (("wav2lip", True), ("vit", False)):
        generator = awake(FORMS[encoder])
        target, reference, mel = given(FORMS[encoder], clips=1)
        other = target.clone()
        other[:, -1] = 0
        with torch.inference_mode():
            same = torch.equal(generator(target, reference, mel)[:, 0], generator(other, reference, mel)[:, 0])
        assert same == alone


def test_published_size_has_the_published_number_of_parameters() -> None:
    generator = Generator(Form("wav2lip", 96, 5, 16, 0.0))
    assert sum(value.numel() for value in generator.parameters()) == 36_298_035


@pytest.mark.parametrize("encoder", FORMS)
def test_files_give_the_same_generator(encoder: LipEncoder, tmp_path: Path) -> None:
    form = FORMS[encoder]
    generator = Generator(form).eval()
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(generator))
    again = read_generator(path)
    assert again.form == form
    assert not any("decoder" in name or "mask_token" in name for name in generator.weights())
    with torch.inference_mode():
        torch.testing.assert_close(again(*given(form)), generator(*given(form)))


def test_other_files_are_no_generators(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    data = generator_bytes(Generator(FORMS["wav2lip"]))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MarlinError, match="is no whole lip-sync generator"):
        read_generator(path)
    from safetensors.torch import save

    form = '{"encoder": "wav2lip", "size": 100, "frames": 5, "channels": 1, "margin": 0}'
    path.write_bytes(save({"a": torch.zeros(2)}, {"generator": form}))
    with pytest.raises(MarlinError, match=r"generator\.safetensors: faces of 100 pixels"):
        read_generator(path)
    path.write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(MarlinError, match="holds no lip-sync generator"):
        read_generator(path)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="faces of 100 pixels can't be halved five times"):
        Form("wav2lip", 100, 5, 4, 0.0)
    with pytest.raises(UsageError, match=r"model\.patch=14"):
        Form("vit", 224, 16, 4, 0.0, "tiny", 14)


def test_critic_learns_to_tell_and_the_generator_is_told() -> None:
    torch.manual_seed(0)
    critic = VisualCritic(32, 2)
    drawn, real = torch.zeros(2, 5, 3, 32, 32), torch.ones(2, 5, 3, 32, 32)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    begin = critic_loss(critic, drawn, real).item()
    for _ in range(30):
        optimizer.zero_grad()
        critic_loss(critic, drawn, real).backward()
        optimizer.step()
    assert critic_loss(critic, drawn, real).item() < begin / 2
    assert fooling_loss(critic, drawn).item() > fooling_loss(critic, real).item()
    upper = real.clone()
    upper[..., :16, :] = 0
    assert fooling_loss(critic, upper).item() == fooling_loss(critic, real).item()
