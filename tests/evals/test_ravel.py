"""Interchanges on a model whose facts are known by heart, on the embedded model, and tasks that are none."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from unweave.coders import SparseCoder, Wiring
from unweave.coders.relu import Relu, ReluConfig
from unweave.errors import UserError
from unweave.evals.entities import EntityConfig, EntityTask, builtin_entities, read_entities
from unweave.evals.entity_prompts import answered_prompts
from unweave.evals.ravel import apartness, definitions, measure_ravel, ranked_latents
from unweave.evals.tasks import document_numbers
from unweave.formats.ravel_files import ravel_records
from unweave.models.language_model import LanguageModel
from unweave.types import Document

COLOURS, SIZES = ("red", "blue", "green"), ("big", "small")
THINGS = tuple(f"thing{number}" for number in range(16))
WORDS = ("a", *THINGS, *COLOURS, *SIZES, "colour", "size", "thing")
VALUES = {
    thing: {"colour": ("red", "blue", "green", "red")[number % 4], "size": SIZES[number // 4 % 2]}
    for number, thing in enumerate(THINGS)
}
TEMPLATES = {"colour": ("a %s colour",), "size": ("a %s size", "%s size")}
IS_TEST = np.arange(16) >= 8


class Facts(nn.Module):
    """Rows hold the colour and the size of a thing, one-hot, or the question; the answer is read from their sum.

    Half a point goes to red and to big in advance, so they win where nothing is known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(len(WORDS), 7)
        rows_VD = torch.zeros(len(WORDS), 7)
        for thing, values in VALUES.items():
            rows_VD[WORDS.index(thing), COLOURS.index(values["colour"])] = 1
            rows_VD[WORDS.index(thing), 3 + SIZES.index(values["size"])] = 1
        rows_VD[WORDS.index("colour"), 5] = rows_VD[WORDS.index("size"), 6] = 1
        self.rows.weight.data.copy_(rows_VD)

    def forward(self, tokens: Tensor) -> Tensor:
        sums = self.rows(tokens).cumsum(1)
        logits = torch.zeros(*tokens.shape, len(WORDS))
        for place, word in enumerate((*COLOURS, *SIZES)):
            question = 5 if word in COLOURS else 6
            logits[..., WORDS.index(word)] = (
                sums[..., place] + 10 * sums[..., question] + 0.5 * (word in ("red", "big"))
            )
        return logits


@pytest.fixture(scope="module")
def facts() -> LanguageModel:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="thing"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return LanguageModel(Facts(), PreTrainedTokenizerFast(tokenizer_object=words), "facts")


@pytest.fixture(scope="module")
def things() -> EntityTask:
    return EntityTask("things", THINGS, TEMPLATES, VALUES, IS_TEST)


def linear_coder(directions_LD: Tensor) -> SparseCoder:
    coder = Relu(ReluConfig(n_latents=len(directions_LD), variant="april_2024"), Wiring.sae(7, "rows"))
    with torch.no_grad():
        coder.W_enc.copy_(directions_LD)
        coder.W_dec.copy_(directions_LD)
        coder.b_enc.zero_()
        coder.b_dec.zero_()
    return coder.eval().requires_grad_(False)


def test_latents_that_are_the_values_tell_attributes_apart(facts: LanguageModel, things: EntityTask) -> None:
    mixed = torch.stack(
        [0.5 * (torch.eye(7)[colour] + torch.eye(7)[3 + size]) for colour in range(3) for size in (0, 1)]
    )
    coders = {"pure": linear_coder(torch.eye(7)), "mixed": linear_coder(mixed)}
    found = measure_ravel(facts, coders, [things], counts=(3, 5, 63), n_pairs=7)
    pure = found["pure"].figures
    for n in (3, 5):
        assert (pure[f"ravel_{n}"], pure[f"ravel_cause_{n}"], pure[f"ravel_isolation_{n}"]) == (1, 1, 1)
    assert pure["ravel_random_5"] == 0.5, "all active latents are the whole row"
    for its in found.values():
        figures = its.figures
        assert (figures["ravel_row"], figures["ravel_cause_row"], figures["ravel_isolation_row"]) == (0.5, 1, 0)
        assert set(figures) <= {definition.name for definition in definitions((3, 5))}, "63 is more than there are"
        assert its.n == 14 and its.details["things/unaligned"] == 0 and its.details["things/prompts"] == 48
    assert max(found["mixed"].figures[f"ravel_{n}"] for n in (3, 5)) < 1


def test_one_latent_of_several_by_hand(facts: LanguageModel, things: EntityTask) -> None:
    """Red and big come first; to move them alone turns the answer where the source is red or big, and nowhere else.

    Of four red, two blue and two green things, 16 of 40 pairs have a red source; of four big and four small, half.
    """
    found = measure_ravel(facts, {"one": linear_coder(torch.eye(7))}, [things], counts=(1,), n_pairs=1000)["one"]
    assert found.details["things/colour/ravel_cause_1"] == 0.4 and found.details["things/size/ravel_cause_1"] == 0.5
    assert found.figures["ravel_cause_1"] == 0.45 and found.figures["ravel_isolation_1"] == 1
    assert found.figures["ravel_1"] == 0.725
    assert found.n == 40 + 2 * 32


def test_errors_leave_out_pairs_with_an_entity_of_the_block(facts: LanguageModel, things: EntityTask) -> None:
    found = measure_ravel(facts, {"one": linear_coder(torch.eye(7))}, [things], counts=(1,), n_pairs=1000)["one"]
    tested = range(8, 16)
    blocks = dict(zip(tested, (document_numbers(THINGS[8:]) % 64).tolist(), strict=True))
    left_out = []
    for block in sorted(set(blocks.values())):
        causes = []
        for attribute, first in (("colour", "red"), ("size", "big")):
            turned = [
                VALUES[THINGS[source]][attribute] == first
                for base, source in itertools.permutations([i for i in tested if blocks[i] != block], 2)
                if VALUES[THINGS[base]][attribute] != VALUES[THINGS[source]][attribute]
            ]
            causes.append(np.mean(turned))
        left_out.append(np.mean(causes))
    expected = np.sqrt((len(left_out) - 1) * np.var(left_out))
    assert found.standard_errors["ravel_cause_1"] == pytest.approx(expected, abs=1e-12) and expected > 0.01


def test_apartness_by_hand() -> None:
    latents = csr_array(np.array([[1.0, 0], [3, 0], [0, 2], [0, 2]]))
    assert apartness(latents, [(5,), (5,), (5,), (9,)]).tolist() == pytest.approx(
        [0.75 * (4 / 3 - 1) ** 2 + 0.25, 1 / 3]
    )
    assert ranked_latents(np.array([[2.0, 2, 0], [1, 3, 0]]), 0).tolist() == [0]


def test_the_embedded_model_answers_about_names(
    pylm: LanguageModel, documents: list[Document], small_coder: SparseCoder
) -> None:
    task = builtin_entities(documents[:300], 150)
    prompts = answered_prompts(pylm, task)
    for i in range(0, len(prompts.sequences), 100):
        assert int(pylm.logits(torch.from_numpy(prompts.sequences[i])[None])[0, -1].argmax()) == prompts.answers[i][0]
        before = pylm.tokenizer.decode(prompts.sequences[i][: prompts.positions[i] + 1])
        assert before.endswith(task.entities[prompts.entities[i]])
    silent = Relu(ReluConfig(n_latents=63, variant="april_2024"), small_coder.wiring)
    with torch.no_grad():
        silent.b_enc.fill_(-1e6)
    found = measure_ravel(pylm, {"small": small_coder, "silent": silent.eval()}, [task], counts=(63,), n_pairs=20)
    figures = found["silent"].figures
    assert (figures["ravel_63"], figures["ravel_cause_63"], figures["ravel_isolation_63"]) == (0.5, 0, 1)
    figures = found["small"].figures
    assert figures["ravel_cause_row"] > 0.9 and figures["ravel_isolation_row"] < 0.1
    assert figures["ravel_cause_63"] <= figures["ravel_cause_row"]


def test_values_that_the_model_does_not_know_are_left_out(facts: LanguageModel) -> None:
    wrong = {thing: dict(values) for thing, values in VALUES.items()}
    wrong["thing0"]["colour"] = "green"
    del wrong["thing1"]["size"]
    prompts = answered_prompts(facts, EntityTask("things", THINGS, TEMPLATES, wrong, IS_TEST))
    assert len(prompts.answers) == 48 - 1 - 2
    assert facts.tokenizer.decode(prompts.answers[0]) == "blue" and prompts.entities[0] == 1


def test_prompts_in_which_a_token_goes_over_the_edge_are_left_out(facts: LanguageModel, things: EntityTask) -> None:
    one_off = {**TEMPLATES, "size": ("a %s size", "a %ss size")}
    task = EntityTask("things", THINGS, one_off, VALUES, IS_TEST)
    prompts = answered_prompts(facts, task)
    assert prompts.n_unaligned == 16 and set(prompts.templates.tolist()) == {0, 1}
    none = EntityTask("things", THINGS, {"colour": ("a%s colour",), "size": ("%ss size",)}, VALUES, IS_TEST)
    with pytest.raises(UserError, match="in none of the 32 prompts of task 'things' the entity begins and ends"):
        answered_prompts(facts, none)


def test_tasks_that_are_none_are_told(facts: LanguageModel, things: EntityTask) -> None:
    with pytest.raises(UserError, match="has the entity 'thing0' more than once"):
        EntityTask("things", ("thing0", *THINGS[:15]), TEMPLATES, VALUES, IS_TEST)
    with pytest.raises(UserError, match="has 1 attributes"):
        EntityTask("things", THINGS, {"colour": ("a %s",)}, VALUES, IS_TEST)
    with pytest.raises(UserError, match="has no single %s"):
        EntityTask("things", THINGS, {**TEMPLATES, "size": ("a thing",)}, VALUES, IS_TEST)
    with pytest.raises(UserError, match="has 1 entities to measure on"):
        EntityTask("things", THINGS, TEMPLATES, VALUES, np.arange(16) == 3)
    all_red = {thing: {**values, "colour": "red"} for thing, values in VALUES.items()}
    with pytest.raises(UserError, match="more than one answer for 1 of the 2 attributes of task 'things'"):
        answered_prompts(facts, EntityTask("things", THINGS, TEMPLATES, all_red, IS_TEST))


def test_files_of_ravel_become_a_task(tmp_path: Path, facts: LanguageModel) -> None:
    files = {
        "entity_attributes": VALUES,
        "attribute_to_prompts": {**TEMPLATES, "age": []},
        "entity_to_split": {thing: ("train", "test", "val")[i % 3] for i, thing in enumerate(THINGS)},
    }
    for what, content in files.items():
        (tmp_path / f"ravel_thing_{what}.json").write_text(json.dumps(content))
    task = read_entities(EntityConfig(source=str(tmp_path), n_templates=1))
    assert task.name == "thing" and task.templates == {"colour": ("a %s colour",), "size": ("a %s size",)}
    assert task.entities == tuple(thing for i, thing in enumerate(THINGS) if i % 3 < 2)
    assert task.is_test.tolist() == [i % 3 == 1 for i in range(16) if i % 3 < 2]
    assert len(answered_prompts(facts, task).answers) == 2 * len(task.entities)


def test_tables_of_a_data_set_are_read_the_same(tmp_path: Path) -> None:
    import datasets

    names = {"train": THINGS[:10], "val": THINGS[10:12], "test": THINGS[12:]}
    config = "configs:\n"
    for table in ("thing_entity", "thing_prompt"):
        config += f"- config_name: {table}\n  data_files:\n"
        for split, things in names.items():
            rows = [{"Thing": thing, **VALUES[thing], "ID": "x"} for thing in things]
            if table == "thing_prompt":
                texts = [{"Template": t, "Attribute": a} for a, found in TEMPLATES.items() for t in found]
                rows = [*texts, {"Template": "%s, as they say", "Attribute": ""}]
            datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / table / f"{split}.parquet"))
            config += f"  - split: {split}\n    path: {table}/{split}.parquet\n"
    (tmp_path / "README.md").write_text(f"---\n{config}---\n")
    records = ravel_records(f"hf:{tmp_path}", "thing")
    assert records.values == VALUES and records.templates == {name: list(found) for name, found in TEMPLATES.items()}
    assert records.splits == {thing: split for split, things in names.items() for thing in things}


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({}, "", "has no file ravel_"),
        ({"a_entity_attributes": {}, "b_entity_attributes": {}}, "", "of the kinds a, b; choose one, as in #a"),
        ({"city_entity_attributes": {}}, "cities", "which is needed; did you mean 'city'"),
        ({"a_entity_attributes": []}, "", "holds a list, not an object"),
        ({"a_entity_attributes": {"x": 3}, "a_attribute_to_prompts": {}}, "", "no attributes for the a 'x', but '3'"),
        ({"a_entity_attributes": {}, "a_attribute_to_prompts": {"y": "%s"}}, "", "no list of templates for 'y'"),
    ],
)
def test_files_that_are_not_of_ravel_are_told(
    tmp_path: Path, files: dict[str, object], kind: str, message: str
) -> None:
    for name, content in files.items():
        (tmp_path / f"ravel_{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        ravel_records(str(tmp_path), kind)
