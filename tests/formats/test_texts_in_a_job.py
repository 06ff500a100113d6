"""Every kind of text trains and measures a coder, and training goes on behind any batch of its text."""

import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from unweave.activations.harvest import harvest
from unweave.errors import UserError
from unweave.models.language_model import LanguageModel
from unweave.pipelines.progress import Watch
from unweave.pipelines.recipe import build_job
from unweave.pipelines.train import run_job
from unweave.pipelines.workbench import Workbench, set_up

QUIET = Watch(quiet=True)
TEMPLATE = "{{ '<|endoftext|>' }}{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"


def _recipe(model: Path, text: dict, **packing: object) -> dict:
    return {
        "site": "layers.1.resid_post",
        "model": {"name": str(model), "device": "cpu", "sequences": 4},
        "text": text,
        "packing": {"context": 32, **packing},
        "coder": {"type": "batch_topk", "n_latents": 63, "k": 7, "k_aux": 12},
        "training": {"rows": 1500, "batch": 100, "buffer": 300, "log_every": 5, "dead_window": 700},
        "evaluation": {"tokens": 300, "splice_tokens": 300},
        "index": {"tokens": 300, "examples": 3, "promoted": 5},
    }


@pytest.fixture
def model(model_folders: dict[str, Path]) -> Path:
    return model_folders["llama"]


@pytest.fixture
def table(tmp_path: Path, reader: str) -> dict:
    texts = [f"Row {i}.\n{reader[i % 63 :]}" for i in range(30)]
    pq.write_table(pa.table({"body": texts}), tmp_path / "table.parquet")
    return {"source": str(tmp_path / "table.parquet"), "field": "body"}


@pytest.fixture
def mix(tmp_path: Path, table: dict, reader: str) -> dict:
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps({"text": f"Line {i}. {reader}"}) for i in range(7)))
    return {"held_out": 0.3, "mix": [{**table, "weight": 2.5}, {"source": str(tmp_path / "lines.jsonl")}]}


@pytest.mark.parametrize("kind", ["table", "mix"])
def test_a_coder_is_trained_and_measured_on_it(
    kind: str, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    text = request.getfixturevalue(kind)
    job = build_job(_recipe(model, text, cross_documents=False, exclude_first_position=True, max_norm=7.0))
    run = run_job(job, tmp_path / "run", QUIET)
    assert run.manifest["rows_trained"] >= 1500
    examples = [example for record in run.latents for example in record.examples]
    held_out = {document.name for document in set_up(job.recipe).corpus.held_out}
    assert {example.document for example in examples} <= held_out
    assert build_job(_recipe(model, text)).to_toml().count("[[text.mix]]") == (2 if kind == "mix" else 0)


def test_the_same_coder_comes_out_of_tokens_as_of_their_text(model: Path, table: dict, tmp_path: Path) -> None:
    job = build_job(_recipe(model, table))
    set_up(job.recipe).write_tokens(tmp_path / "table.tokens")
    again = build_job(_recipe(model, {"source": f"tokens:{tmp_path / 'table.tokens'}"}))
    ours, theirs = (run_job(each, tmp_path / name, QUIET) for name, each in (("text", job), ("tokens", again)))
    for name, weights in ours.coder.state_dict().items():
        assert torch.equal(weights, theirs.coder.state_dict()[name])
    assert {k: v for k, v in ours.results.items() if k != "measured_with"} == {
        k: v for k, v in theirs.results.items() if k != "measured_with"
    }


def test_chats_are_rendered_by_the_models_own_template(model: Path, tmp_path: Path) -> None:
    chats = [
        [{"role": "user", "content": f"Knot {i}?"}, {"role": "assistant", "content": f"{i} threads. " * 9}]
        for i in range(63)
    ]
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    recipe = _recipe(model, {"source": str(tmp_path / "chats.jsonl"), "chat": True})
    with pytest.raises(UserError, match="needs a tokenizer with a chat template"):
        set_up(build_job(recipe).recipe)
    talking = LanguageModel.load(model)
    talking.tokenizer.chat_template = TEMPLATE
    talking.model.save_pretrained(tmp_path / "talking")
    talking.tokenizer.save_pretrained(tmp_path / "talking")
    recipe["model"]["name"] = str(tmp_path / "talking")
    bench = set_up(build_job(recipe).recipe)
    batch = next(bench.training_batches())
    number = int(next(iter(bench.corpus.train)).name.rpartition("#")[2])
    assert talking.tokenizer.decode(batch.token_ids[0]).startswith(f"<|endoftext|>user: Knot {number}?\nassistant: ")
    assert not batch.is_content[0, 0]


def _bench(model: Path, text: dict, **packing: object) -> Workbench:
    return set_up(build_job(_recipe(model, text, **packing)).recipe)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("kind", ["table", "mix"])
def test_rows_go_on_behind_any_batch_with_the_same_bits(
    kind: str, across: bool, model: Path, request: pytest.FixtureRequest
) -> None:
    bench = _bench(model, request.getfixturevalue(kind), cross_documents=across)
    sites = ["layers.1.resid_post"]
    rows = list(itertools.islice(harvest(bench.model, bench.training_batches(), sites), 300))
    assert rows[-1].after is not None
    assert rows[-1].after.document > 3 * 30, "the text is read several times"
    for i in (0, 7, 63, 200):
        start = rows[i].after
        assert start is not None
        again = itertools.islice(harvest(bench.model, bench.training_batches(start), sites), 3)
        for expected, each in zip(rows[i + 1 :], again, strict=False):
            assert torch.equal(expected.activations[sites[0]], each.activations[sites[0]])
            assert torch.equal(expected.document_ids, each.document_ids)
            assert expected.after == each.after


def test_a_text_that_is_read_again_is_told_of(model: Path, table: dict) -> None:
    told: list[str] = []
    bench = _bench(model, table)
    batches = bench.training_batches(told=told.append)
    while not told:
        next(batches)
    batches.close()
    assert told[0].endswith("documents and is read again from its start")


def test_massive_rows_are_left_out_of_what_a_workbench_harvests(model: Path, table: dict) -> None:
    batch = next(_bench(model, table).training_batches())
    every, usual = (_bench(model, table, max_norm=limit).rows(batch, ["layers.1.resid_post"]) for limit in (0.0, 1.2))
    norms = every.activations["layers.1.resid_post"].norm(dim=1)
    assert len(usual) == (norms <= 1.2 * norms.median()).sum() < len(every)
