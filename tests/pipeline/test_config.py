"""The configuration: presets, files, overrides, and errors that say what to do."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import dump_config, load_config, preset_names, validate
from pipeline.errors import UsageError


def write(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def error_of(source: str, *overrides: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    cfg = load_config(name)
    assert cfg.run.name == name
    assert load_config(write(tmp_path, dump_config(cfg))) == cfg


def test_the_promised_presets_are_there() -> None:
    assert {"demo", "ytf-vit-small", "ytf-vit-base", "ytf-vit-large", "videomae-vit-base"} <= set(preset_names())


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_paper_presets_hold_the_papers_values(size: str) -> None:
    cfg = load_config(f"ytf-vit-{size}")
    train, critic, data = cfg.train, cfg.critic, cfg.data
    assert (train.epochs, train.steps, train.global_batch, train.warmup) == (2000, None, 64, 0.02)
    assert (train.base_lr, train.min_lr, train.betas, train.weight_decay) == (1.5e-4, 1e-5, (0.9, 0.95), 0.0)
    assert (critic.weight, critic.steps, critic.lipschitz) == (0.01, 1, "none")
    assert (data.mask.strategy, data.mask.ratio, data.flip, data.epoch_unit) == ("fasking", 0.9, False, "source")
    assert (data.frames, data.stride, cfg.preprocess.size, cfg.model.patch) == (16, 2, 224, 16)
    assert (cfg.model.size, train.precision) == (size, "fp32")


def test_the_baseline_has_no_critic() -> None:
    cfg = load_config("videomae-vit-base")
    assert (cfg.critic.weight, cfg.data.mask.strategy) == (0.0, "tube")


@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-12, 1e3),
    path=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
)
def test_any_value_survives_a_round_trip(
    steps: int, rate: float, path: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cfg = validate({"train": {"steps": steps, "base_lr": rate, "min_lr": 0}, "corpus": {"path": path}}, "test")
    assert load_config(write(tmp_path_factory.getbasetemp(), dump_config(cfg))) == cfg


def test_a_file_starts_from_a_preset(tmp_path: Path) -> None:
    cfg = load_config(
        write(tmp_path, "preset: demo\nrun: {name: mine}\ndata: {mask: {ratio: 0.5}}\n"), ["model.size=small"]
    )
    demo = load_config("demo")
    assert (cfg.run.name, cfg.data.mask.ratio, cfg.model.size) == ("mine", 0.5, "small")
    assert cfg.data.mask.strategy == demo.data.mask.strategy
    assert cfg.train == demo.train


@pytest.mark.parametrize(
    ("override", "steps", "epochs"), [("train.steps=7", 7, None), ("train.epochs=9", None, 9)], ids=["steps", "epochs"]
)
@pytest.mark.parametrize("preset", ["demo", "ytf-vit-base"])
def test_the_length_is_one_choice(
    preset: str, override: str, steps: int | None, epochs: int | None, tmp_path: Path
) -> None:
    section, value = override.split("=")
    key = section.partition(".")[2]
    for cfg in (
        load_config(preset, [override]),
        load_config(write(tmp_path, f"preset: {preset}\ntrain: {{{key}: {value}}}")),
    ):
        assert (cfg.train.steps, cfg.train.epochs) == (steps, epochs)


def test_both_lengths_or_none_are_refused(tmp_path: Path) -> None:
    exactly = "set exactly one of train.steps and train.epochs"
    assert exactly in error_of("demo", "train.steps=1", "train.epochs=1")
    assert exactly in error_of(write(tmp_path, "train: {steps: 1, epochs: 1}"))
    assert exactly in error_of(write(tmp_path, "train: {global_batch: 8}"))
    assert "'train' is missing" in error_of(write(tmp_path, "run: {name: x}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=5", "unknown key 'train.stepz' (did you mean 'train.steps'?)"),
        ("tran.steps=5", "unknown key 'tran' (did you mean 'train'?)"),
        ("train.ratio=0.5", "did you mean 'data.mask.ratio'?"),
        ("data.mask.rato=0.5", "did you mean 'data.mask.ratio'?"),
        ("run.xyzzy=1", "(known here: name)"),
        ("preset=demo", "unknown key 'preset'"),
        (
            "train.steps=many",
            'train.steps: Input should be a valid integer, unable to parse string as an integer, not "many"',
        ),
        ("train.steps=0", "train.steps: Input should be greater than 0, not 0"),
        ("train.steps=", "train.steps: Input should be a valid integer"),
        ("train.steps=1.5", "train.steps: Input should be a valid integer"),
        ("train.steps={a: 1}", "train.steps"),
        ("train=5", "train: Input should be"),
        ("train.base_lr=.inf", "train.base_lr: Input should be a finite number"),
        ("train.min_lr=1", "train.min_lr=1 is above train.base_lr="),
        ("run.name=5", "run.name: Input should be a valid string, not 5"),
        ("run.name=a/b", "run.name: String should match pattern"),
        ("run.name=../x", "run.name"),
        (
            "eval.tasks=[attribute-linear]",
            "eval.tasks.0: \"attribute-linear\" is none of its 31 values (nearest: 'attributes-linear',",
        ),
        (
            "model.size=huge",
            "model.size: Input should be 'micro', 'tiny', 'mini', 'small', 'base' or 'large', not \"huge\"",
        ),
        ("data.stride=5", "more than preprocess.min_frames=16"),
        ("train.keep_every=75", "train.keep_every=75 is no multiple of train.checkpoint_every=50"),
        ("train.keep_best=mse", "train.keep_best"),
        ("train.keep_best=lipsync/error", "train.keep_best=lipsync/error needs the task in eval.tasks"),
        ("data.frames=15", "data.frames=15 must be even"),
        ("model.patch=24", "model.patch=24 must divide preprocess.size=224"),
        ("preprocess.size=100", "preprocess.size=100 is not a multiple of preprocess.patch=16"),
        ("train.steps", "'train.steps' is no override: write section.key=value"),
        ("=5", "is no override"),
        ("train..steps=5", "is no override"),
        ("train.steps=[1", "the value of 'train.steps=[1' is not valid YAML"),
    ],
)
def test_wrong_overrides_are_explained(override: str, message: str) -> None:
    assert message in error_of("demo", override)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{dataset: a, weight: 0}", "data.mix.0.weight: Input should be greater than 0, not 0"),
        ("{dataset: a, weight: -2}", "data.mix.0.weight: Input should be greater than 0, not -2"),
        ("{dataset: a, weight: 0.5}", "data.mix.0.weight: Input should be a valid integer"),
        ("{dataset: a, weight: 10001}", "data.mix.0.weight: Input should be less than or equal to 10000"),
        ("{dataset: a}", "'data.mix.0.weight' is missing"),
        ("{dataset: '', weight: 1}", "data.mix.0.dataset: String should have at least 1 character"),
        ("{dataset: a, weight: 1, wieght: 2}", "unknown key 'data.mix.0.wieght' (did you mean 'data.mix.0.weight'?)"),
        ("{dataset: a, weight: 1}, {dataset: a/, weight: 2}", "data.mix names a twice"),
    ],
)
def test_wrong_mixes_are_explained(entries: str, message: str) -> None:
    assert message in error_of("demo", f"data.mix=[{entries}]")


def test_a_mix_and_a_dataset_are_one_choice(tmp_path: Path) -> None:
    mix = "data.mix=[{dataset: a, weight: 2}, {dataset: s3://b/c, weight: 1}]"
    plain = write(tmp_path, "preset: demo\ndata: {dataset: x}")
    data = load_config(plain, [mix]).data
    assert (data.dataset, [part.weight for part in data.mix]) == ("", [2, 1])
    mixed = write(tmp_path, "preset: demo\ndata: {mix: [{dataset: a, weight: 2}]}")
    data = load_config(mixed, ["data.dataset=b"]).data
    assert (data.dataset, data.mix) == ("b", ())
    assert load_config(mixed, ["data.dataset="]).data.mix
    assert "set one of data.dataset and data.mix" in error_of(mixed, "data.dataset=b", mix)
    resolved = write(tmp_path, dump_config(load_config(mixed)))
    assert load_config(resolved, ["data.dataset=b"]).data.dataset == "b"


def test_a_mix_is_not_measured_in_epochs() -> None:
    mix = "data.mix=[{dataset: a, weight: 2}]"
    assert "set train.steps instead of train.epochs" in error_of("ytf-vit-base", mix)
    assert load_config("ytf-vit-base", [mix, "train.steps=7"]).train.epochs is None


def test_bf16_without_sharding_is_refused() -> None:
    assert "bf16 diverges at train.zero_stage=0" in error_of("demo", "train.precision=bf16", "train.zero_stage=0")


def test_compiling_with_weights_that_come_and_go_is_refused() -> None:
    assert "model.compile=true was not tried at train.zero_stage=3" in error_of(
        "demo", "model.compile=true", "train.zero_stage=3"
    )


def test_opencv_decodes_on_the_cpu_alone() -> None:
    message = error_of("demo", "data.decoder=opencv", "data.decode_device=mixed")
    assert "data.decoder=opencv decodes on the CPU" in message
    assert "data.keep_gb keeps what OpenCV decodes" in error_of("demo", "data.keep_gb=1")


def test_odd_but_right_overrides() -> None:
    overrides = [
        "storage.root='/a b=c'",
        "train.base_lr=1e-2",
        "preprocess.fps=null",
        "eval.tasks=[reconstruction]",
        "corpus.path=",
    ]
    cfg = load_config("demo", overrides)
    assert (cfg.storage.root, cfg.train.base_lr, cfg.preprocess.fps) == ("/a b=c", 1e-2, None)
    assert (cfg.eval.tasks, cfg.corpus.path) == (("reconstruction",), "")


def test_all_problems_come_at_once() -> None:
    message = error_of("demo", "train.stepz=5", "model.size=huge")
    assert "train.stepz" in message
    assert "model.size" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "must hold sections such as 'train:', not a list"),
        (b"42", "not a int"),
        (b"a: [1", "is not valid YAML in line 1"),
        (b"train: {steps: 1}\nx: }", "is not valid YAML in line 2"),
        (b"\xff\xfe\x00\xd8", "can't read the configuration"),
        (b"run: {name: \x01}", "is not valid YAML"),
        (b"1: 2\ntrain: {steps: 1}", "1"),
        (b"preset: nope", "preset 'nope' does not exist; presets: demo"),
        (b"preset: [demo]", "does not exist"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"", "'train' is missing"),
    ],
)
def test_unusable_files_are_explained(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    text = error_of(str(path))
    assert message in text
    assert str(path) in text


def test_a_missing_file_names_the_nearest_preset(tmp_path: Path) -> None:
    assert "(did you mean 'ytf-vit-base'?)" in error_of("ytf-vit-bas")
    assert "no preset and no file" in error_of(str(tmp_path / "none.yaml"))
    assert "can't read the configuration" in error_of(str(tmp_path))


def test_sections_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config("demo").train.steps = 5  # type: ignore[misc]


def test_a_password_in_the_tracking_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"tracking\.uri: holds a password") as caught:
        load_config("demo", ["tracking.uri=https://me:hunter2@mlflow.example.org"])
    assert "hunter2" not in str(caught.value)


def test_forgeries_are_no_copies_unless_it_is_said() -> None:
    def seeks(*overrides: str) -> bool:
        return load_config("demo", ["storage.root=/nowhere", *overrides]).preprocess.near_duplicates

    assert seeks()
    assert not seeks("corpus.kind=ffpp")
    assert seeks("corpus.kind=ffpp", "preprocess.near_duplicates=true")
    assert not seeks("preprocess.near_duplicates=false")
