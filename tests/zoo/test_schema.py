"""Cards: every field is checked, sizes are those of the networks, and the built-in ones are true."""

from __future__ import annotations

import pytest
import torch
import yaml

from hftrainer.config import ConfigError
from hftrainer.evaluation import physical
from hftrainer.evaluation.protocols.schema import protocol_names
from hftrainer.evaluation.vocabulary import arrow_of, current_name, current_result
from hftrainer.models.motion.motionmillion.config import HumanVQVAEConfig
from hftrainer.models.motion.motionmillion.network import LLaMAHF, LLaMAHFConfig
from hftrainer.registry import EVALUATORS, PIPELINES
from hftrainer.zoo import cards, memory, read_card
from hftrainer.zoo.files import REPOSITORY, local_folder, verify
from tests.zoo.plugin import TOY_CARD

FIELDS = yaml.safe_load(TOY_CARD.format(pipeline="toy263"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder, **changes):
    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value != "absent"}
    path = folder / "toy-263.yaml"
    path.write_text(yaml.safe_dump(fields))
    return path


def test_a_card_is_read_with_its_name_from_the_file(tmp_path):
    card = read_card(write(tmp_path, hub={"repository": "someone/toy", "revision": COMMIT}))
    assert card.name == "toy-263"
    assert card.names == ["toy-263", "toy"]
    assert card.hub.revision == COMMIT
    assert card.file == tmp_path / "toy-263.yaml"


LICENCE = FIELDS["licence"]
WRONG = {
    "unknown key": ({"tsk": "evaluator"}, "unknown key 'tsk'; did you mean 'task'"),
    "unknown nested key": ({"licence": {**LICENCE, "comercial": True}}, "licence.comercial"),
    "unknown key in a list": ({"parts": [{"name": "a", "parameters": 1, "dtyp": "float32"}]}, r"parts\[0\]\.dtyp"),
    "missing": ({"licence": "absent"}, "licence is required"),
    "missing nested": (
        {"licence": {k: v for k, v in LICENCE.items() if k != "commercial"}},
        "licence.commercial is required",
    ),
    "type": ({"parts": [{"name": "a", "parameters": "many"}]}, r"parts\[0\].parameters.*'many'"),
    "task": ({"task": "text2motion"}, "task must be one of .*'text-to-motion'.* got 'text2motion'"),
    "no pipeline": ({"pipeline": None}, "pipeline is missing: a card with the task text-to-motion"),
    "no list": ({"parts": {"name": "a"}}, "parts must be a list, got"),
    "no parts": ({"parts": []}, "parts is empty"),
    "no parameters": ({"parts": [{"name": "a", "parameters": 0}]}, r"parts\[0\]: parameters must be at least 1"),
    "dtype": (
        {"parts": [{"name": "a", "parameters": 1, "dtype": "fp8"}]},
        r"parts\[0\]: dtype must be one of .* got 'fp8'",
    ),
    "no place": ({"folders": []}, "neither folders nor hub"),
    "revision left out": ({"hub": {"repository": "someone/toy"}}, "hub.revision is required"),
    "branch as revision": ({"hub": {"repository": "someone/toy", "revision": "main"}}, "hub.revision must be a full"),
    "repository": ({"hub": {"repository": "toy", "revision": None}}, "hub.repository must be owner/repo"),
    "hash": ({"files": {"a.npy": "123"}}, "files: a.npy must have a SHA-256"),
    "file outside": ({"files": {"../a.npy": "0" * 64}}, "files: '../a.npy' must be a path inside"),
    "reason": ({"leaderboard": {"eligible": True, "reason": " "}}, "leaderboard.reason is empty"),
    "origin": (
        {"results": [{"protocol": "p", "origin": "guessed", "source": "s", "values": {"FID": 1.0}}]},
        r"results\[0\]: origin must be one of",
    ),
    "source": (
        {"results": [{"protocol": "p", "origin": "measured", "source": "", "values": {"FID": 1.0}}]},
        r"results\[0\]: source and values",
    ),
    "other name": ({"name": "other"}, "name is 'other', but the file is called toy-263.yaml"),
    "alias": ({"aliases": ["Some/Body"]}, "aliases must be lower-case .* got 'Some/Body'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_names_the_file_and_the_field(tmp_path, case):
    changes, message = WRONG[case]
    with pytest.raises(ConfigError, match=rf"toy-263\.yaml: .*{message}"):
        read_card(write(tmp_path, **changes))


def test_memory_counts_each_part_in_its_dtype(tmp_path):
    parts = [{"name": "a", "parameters": 1000}, {"name": "b", "parameters": 10, "dtype": "float32"}]
    card = read_card(write(tmp_path, parts=parts, cache_values=7))
    assert memory(card, "float32") == 4040
    assert memory(card, "bfloat16") == memory(card, "float16") == 2040
    assert memory(card, "bfloat16", motions=3) == 2040 + 3 * 7 * 2
    with pytest.raises(ValueError, match="dtype must be one of"):
        memory(card, "fp8")


@pytest.mark.parametrize(
    ("name", "preset", "gigabytes"), [("gotozero-3b-train", "3B", 6.81), ("gotozero-7b-train", "7B", 15.64)]
)
def test_released_sizes_are_those_of_the_networks(name, preset, gigabytes):
    """The networks on the meta device, and the sizes of the released files in bfloat16 (spec of the release)."""
    card = cards()[name]
    sizes = {part.name: part.parameters for part in card.parts}
    config = LLaMAHFConfig.from_name(preset)
    with torch.device("meta"):
        transformer, tokenizer = LLaMAHF(config), new_tokenizer()
    assert sizes["transformer"] == count(transformer)
    assert sizes["tokenizer"] == count(tokenizer)
    assert card.cache_values == 2 * config.n_layer * config.n_embd * config.block_size
    assert sizes["transformer"] * 2 / 1e9 == pytest.approx(gigabytes, abs=0.005)
    # Flan-T5-XL's encoder: embeddings, 24 blocks of attention and a gated feed-forward layer, norms, position biases
    width, hidden, heads = 2048, 5120, 32
    block = 4 * width * width + 3 * width * hidden + 2 * width
    assert sizes["text encoder"] == 32128 * width + 24 * block + 32 * heads + width


def test_nano_sizes_are_those_of_the_networks():
    from hftrainer.models.motion.motionmillion import MotionMillionBundle
    from hftrainer.models.motion.motionstreamer import MotionStreamer272Evaluator

    bundle = MotionMillionBundle.from_pretrained(local_folder(cards()["gotozero-nano"]))
    sizes = {part.name: part.parameters for part in cards()["gotozero-nano"].parts}
    assert sizes == {
        "transformer": count(bundle.ar), "tokenizer": count(bundle.vqvae), "text encoder": count(bundle.text_encoder),
    }  # fmt: skip
    judge = MotionStreamer272Evaluator.from_pretrained(local_folder(cards()["motionstreamer272-nano"]))
    assert cards()["motionstreamer272-nano"].parameters == count(judge)


@pytest.mark.parametrize("name", cards())
def test_built_in_cards_name_what_exists(name):
    card = cards()[name]
    if card.pipeline:
        assert card.pipeline in PIPELINES.names()
    if card.evaluator:
        assert card.evaluator in EVALUATORS.names()
    assert "{" in card.citation
    assert (REPOSITORY / card.guide).is_file()
    for result in card.results:
        assert result.protocol in [*protocol_names(), "physical"]
        if result.protocol == "physical":
            assert set(result.values) <= set(physical.KEYS)
        for metric in result.values:
            assert current_name(metric) == metric  # not a name of an earlier version
            assert arrow_of(metric)
        if result.origin == "measured":
            assert (REPOSITORY / result.source).is_file()


def test_the_published_rows_are_the_model_cards():
    """Figures of the released models' cards, digit by digit."""
    rows = {name: {r.protocol: r for r in cards()[name].results} for name in ("gotozero-7b-train", "gotozero-3b-train")}
    native = [list(row["hml3d-272-leaderboard"].values.values()) for row in rows.values()]
    assert native == [
        [3.081, 4.957, 0.740, 0.878, 0.924, 15.371, 27.575], [3.066, 4.981, 0.740, 0.877, 0.923, 15.381, 27.560],
    ]  # fmt: skip
    clip = [list(row["motionclip-135"].values.values()) for row in rows.values()]
    assert clip == [
        [0.689, 0.827, 0.881, 299.617, 42.537, 23.092], [0.689, 0.827, 0.881, 298.933, 42.528, 23.117],
    ]  # fmt: skip
    body = [list(row["physical"].values.values()) for row in rows.values()]
    assert body == [[4.441, 20.060, 9.906, 21.324], [4.440, 20.093, 9.886, 21.327]]
    assert all(r.origin == "published" for row in rows.values() for r in row.values())


def test_measured_figures_are_those_of_the_report():
    import json

    card = cards()["gotozero-nano"]
    result = next(r for r in card.results if r.protocol == "hftrainer-v1")
    report = current_result(json.loads((REPOSITORY / result.source).read_text()))["rows"]
    for values, row in ((result.values, "predicted"), (result.real, "real")):
        for key, value in values.items():
            assert value == pytest.approx(report[row][key]["mean"], rel=5e-4)  # four digits are written


@pytest.mark.parametrize("name", ["gotozero-nano", "motionstreamer272-nano"])
def test_committed_models_have_the_hashes_of_their_cards(name):
    card = cards()[name]
    folder = REPOSITORY / card.folders[0]
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.safetensors")} <= set(card.files)
    assert verify(card, folder) >= len(card.files) > 5


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def new_tokenizer():
    import dataclasses

    from hftrainer.models.motion.motionmillion.network import HumanVQVAE

    return HumanVQVAE(**dataclasses.asdict(HumanVQVAEConfig()))


@pytest.mark.parametrize("name", ["gotozero-nano", "motionstreamer272-nano"])
def test_the_readme_of_a_committed_model_is_the_one_that_packaging_writes(name):
    card = cards()[name]
    readme = (REPOSITORY / card.folders[0] / "README.md").read_text()
    assert readme == (REPOSITORY / "tools" / f"{name}.md").read_text()
    assert card.licence.name in readme
    assert readme.startswith("---\nlicense: cc-by-nc-4.0\n")
