"""The command line as a user runs it: exit codes, what it prints, one line for what is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unweave.cli.main import main

Call = Callable[..., subprocess.CompletedProcess[str]]


def unweave(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error::UserWarning:unweave", "-m", "unweave.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line in the folder as ``unweave`` does, without the seconds that a process of its own takes."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["unweave", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output, errors = capsys.readouterr()
        code = ended.value.code
        return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, output, errors)

    return call


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path], reader: str) -> Path:
    """A folder with a recipe, a text and a finished run, as a user's would be."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "weaver.txt").write_text("".join(f"Chapter {i}.\n{reader}" for i in range(120)))
    (folder / "small.toml").write_text(
        f"""site = "layers.1.resid_post"
model = {{ name = "{model_folders["gpt2"]}", device = "cpu" }}
text = {{ source = "weaver.txt" }}
packing = {{ context = 32 }}
coder = {{ type = "batch_topk", n_latents = 100, k = 7 }}
training = {{ rows = 4000, batch = 100, buffer = 1000 }}
evaluation = {{ tokens = 1000, splice_tokens = 300 }}
"""
    )
    done = unweave("train", "small.toml", "coder.k=9", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Explained variance" in done.stdout
    assert done.stdout.rstrip().splitlines()[-2:] == [
        "report: runs/small/report/index.html",
        "look at its latents: unweave serve runs/small",
    ]
    return folder


def test_show_prints_one_latent_with_its_examples(here: Call) -> None:
    shown = here("show", "runs/small", "--latent", "3")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("latent 3 of 100")
    assert "promotes" in shown.stdout
    assert "weaver.txt#" in shown.stdout


def test_doctor_says_what_is_off(here: Call) -> None:
    said = here("doctor", "runs/small")
    assert said.returncode == 0, said.stderr
    assert "Explained variance is" in said.stdout


def test_report_writes_the_same_pages_again(here: Call, folder: Path) -> None:
    page = folder / "runs/small/report/index.html"
    before = page.read_bytes()
    page.unlink()
    assert here("report", "runs/small").returncode == 0
    assert page.read_bytes() == before


def test_convert_writes_a_run_for_another_library_and_back(here: Call, folder: Path) -> None:
    assert here("convert", "runs/small", "for-saelens", "--to", "saelens").returncode == 0
    assert (folder / "for-saelens/cfg.json").is_file()
    back = here("convert", "for-saelens", "back")
    assert back.returncode == 0, back.stderr
    assert back.stdout.startswith("back: 100 latents")
    assert (folder / "back/config.toml").is_file()


def test_a_run_does_not_differ_from_itself(here: Call) -> None:
    said = here("compare", "runs/small", "runs/small")
    assert said.returncode == 0, said.stderr
    assert "not told apart" in said.stdout
    assert " real" not in said.stdout


def test_compare_prints_what_two_coders_have_in_common_beside_chance(here: Call, folder: Path) -> None:
    asked = ("--suite", "matching,stitching", "--draws", "3", "--json", "found.json")
    settings = ("evaluation.tokens=300", "evaluation.splice_tokens=300")
    said = here("compare", "runs/small", "runs/small/coder", *settings, *asked)
    assert said.returncode == 0, said.stderr
    assert "matching: 100 pairs of latents" in said.stdout and "by chance" in said.stdout
    assert "stitching: runs/small/coder has " in said.stdout and "KL, novel latents" in said.stdout
    assert set(json.loads((folder / "found.json").read_text())["comparisons"]) == {"matching", "stitching"}


def test_suites_measure_a_run_beside_its_floors_and_keep_what_they_found(here: Call, folder: Path) -> None:
    kinds = {"rope": "the beam holds the warp and a knot", "water": "a river runs down to the sea at night"}
    lines = [f"{text} {i} times,{kind}" for i in range(30) for kind, text in kinds.items()]
    (folder / "kinds.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    measured = here("evaluate", "runs/small", "--suite", "probing", "--task", "kinds.csv", "--quiet")
    assert measured.returncode == 0, measured.stderr
    assert "probing: " in measured.stdout and "random" in measured.stdout
    assert here("evaluate", "runs/small", "--suite", "mdl", "--quiet").returncode == 0
    found = json.loads((folder / "runs/small/suites.json").read_text())
    assert set(found) == {"probing", "mdl"}
    assert set(found["probing"]) == {"small", "random", "pca", "identity"}
    assert found["probing"]["small"]["figures"]["probe_row"] > 0.9, "the kinds share no word"
    assert found["probing"]["small"]["n"] > 0


def test_releases_are_listed_by_a_part_of_their_name(here: Call) -> None:
    listed = here("releases", "gpt2-small-res-jb")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[0] == "gpt2-small-res-jb/blocks.{layer}.hook_resid_{point}"
    assert "gpt2, saelens" in listed.stdout


def test_describe_prints_every_setting_of_an_architecture(here: Call) -> None:
    said = here("describe", "coder.batch_topk")
    assert said.returncode == 0, said.stderr
    assert "k (int | float) = 32" in said.stdout
    assert "Mean number of active latents per row." in said.stdout


def test_sites_lists_the_sites_of_a_model_and_what_proves_them(here: Call, model_folders: dict[str, Path]) -> None:
    shown = here("sites", str(model_folders["llama"]))
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    z = next(row for row in rows if row[:1] == ["layers.*.attn.z"])
    assert z[1:4] == ["*.self_attn.o_proj", "in", "24"]
    assert len([row for row in rows if row and row[-1].endswith("%")]) == 20
    assert "stream = start + all that is added: off by at most" in shown.stdout
    assert "edits that change nothing: leave the output as it is, bit for bit" in shown.stdout
    assert "problem" not in shown.stdout


def test_sites_says_where_nothing_was_found(here: Call, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=63, hidden_size=12, num_hidden_layers=2, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    shown = here("sites", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert "problem: What attention and MLP add was not found in layers 0, 1." in shown.stdout
    assert "each block adds attn_out + mlp_out: does not apply" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "small.toml"), "pass --overwrite"),
        (("train", "smal.toml"), "there is no file 'smal.toml'"),
        (("train", "small.toml", "coder.q=3", "--out", "x"), "unknown setting 'coder.q'"),
        (("train", "small.toml", "coder.k=101", "--out", "x"), "coder.k needs 0 < k <= n_latents"),
        (("train", "small.toml", "site=layers.1.resid_pst", "--out", "x"), "did you mean 'layers.1.resid_post'"),
        (("train", "small.toml", "target=layers.1.mlp_ot", "--out", "x"), "did you mean 'layers.1.mlp_out'"),
        (("train", "small.toml", "skip=true", "--out", "x"), "skip=true needs a target"),
        (("train", "small.toml", "packing.context=64", "--out", "x"), "longer than the 63 tokens"),
        (("train", "small.toml", "text.source=none.txt", "--out", "x"), "there is no text 'none.txt'"),
        (("train", "small.toml", "model.name=./none", "--out", "x"), "no model folder './none'"),
        (("show", "runs/none", "--latent", "1"), "there is no run folder"),
        (("show", "runs/small", "--latent", "100"), "latents 0 to 99"),
        (("doctor", "."), "is not a run"),
        (("describe", "coder.batchtopk"), "did you mean 'coder.batch_topk'"),
        (("convert", "runs/none", "x"), "there is no folder 'runs/none', and no release 'runs'"),
        (("convert", "runs/small", "x", "--to", "saelen"), "unknown format to write 'saelen'; did you mean 'saelens'"),
        (("convert", "runs/small", "runs", "--to", "saelens"), "'runs' exists; give a new folder"),
        (("evaluate", "runs/small", "--suite", "probin"), "unknown suite 'probin'; did you mean 'probing'"),
        (("evaluate", "runs/small", "--suite", "probing", "--task", "none.csv"), "there is no task 'none.csv'"),
        (("compare", "runs/small", "runs/none"), "there is no run folder 'runs/none'"),
        (("compare", "runs/small", "./none", "--suite", "matching"), "none"),
        (("compare", "runs/small", "runs/small", "--suite", "stiching"), "did you mean 'stitching'"),
        (("compare", "runs/small", "runs/small", "--suite", ","), "give --suite some of matching, stitching"),
        (("compare", "runs/small", "runs/small", "--suite", "transfer"), "transfer is to another site or model"),
        (("compare", "runs/small", "runs/small", "--json", "x.json"), "say which with --suite"),
        (("releases", "gpt7-large"), "no release has 'gpt7-large'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    here: Call, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    failed = here(*arguments)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert says in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert not list(folder.glob("x*"))


def test_a_process_of_its_own_ends_with_one_line_and_exit_code_two_as_well(folder: Path) -> None:
    failed = unweave("train", "smal.toml", cwd=folder)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: there is no file 'smal.toml'") and failed.stderr.count("\n") == 1


def test_damaged_model_weights_are_one_line_and_exit_code_two(
    here: Call, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    for file in model_folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 2000 if file.suffix == ".safetensors" else None])
    failed = here("train", "small.toml", f"model.name={tmp_path}", "--out", "x")
    assert failed.returncode == 2
    assert "damaged" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_bench_truth_marks_architectures_against_known_features(here: Call, folder: Path) -> None:
    settings = [
        "data.n_features=20",
        "data.d_model=10",
        "steps=40",
        "batch=128",
        "heldout=1000",
        "tries=2",
        "seeds=[0, 1]",
    ]
    done = here("bench", "truth", *settings, "--architectures", "topk,relu", "--json", "marks.json")
    assert done.returncode == 0, done.stderr
    assert "40 steps of 128 rows, 20 features in 10 dimensions" in done.stdout
    marks = json.loads((folder / "marks.json").read_text())
    assert [mark["architecture"] for mark in marks["architectures"]] == ["topk", "relu"]
    for mark in marks["architectures"]:
        assert len(mark["mcc"]) == 2
        assert all(0.3 < value <= 1 for value in mark["mcc"]), "two directions of a hundred pairs are never this alike"
        assert str(round(sum(mark["mcc"]) / 2, 3)) in done.stdout


def test_bench_truth_says_how_much_children_absorb_where_features_are_trees(here: Call, folder: Path) -> None:
    trees = ["data.n_features=20", "data.d_model=10", "data.roots=2", "data.branching=2", "data.depth=1"]
    small = ["steps=20", "batch=128", "heldout=1000", "seeds=[0]"]
    done = here("bench", "truth", *trees, *small, "--architectures", "topk", "--json", "trees.json")
    assert done.returncode == 0, done.stderr
    (mark,) = json.loads((folder / "trees.json").read_text())["architectures"]
    assert "absorbed" in done.stdout and f"{mark['parent_absorbed'][0]:.2f}" in done.stdout
    assert set(mark) >= {"parent_silent_with_child", "parent_silent_alone", "child_holds_parent", "uniqueness"}


def test_tokenize_writes_a_file_that_a_recipe_can_read(here: Call) -> None:
    done = here("tokenize", "small.toml", "--out", "weaver.tokens")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("tokens in weaver.tokens\n")
    trained = here("train", "small.toml", "text.source=tokens:weaver.tokens", "--out", "runs/tokens")
    assert trained.returncode == 0, trained.stderr


def test_sweep_prints_a_line_for_each_coder_and_resume_says_when_there_is_nothing_to_do(here: Call) -> None:
    swept = here("sweep", "small.toml", "coder.k=[5, 9]", "training.rows=2000", "--out", "runs/swept")
    assert swept.returncode == 0, swept.stderr
    assert "runs/swept: 2 coders" in swept.stdout
    assert "report: runs/swept/report/index.html" in swept.stdout
    again = here("train", "--resume", "runs/swept")
    assert again.returncode == 2
    assert again.stderr.startswith("error: there is nothing to resume at 'runs/swept'")
    alone = here("train", "small.toml", "coder.k=[5, 9]")
    assert (alone.returncode, alone.stderr.strip()) == (
        2,
        "error: the recipe asks for 2 coders; `unweave sweep` trains them in one pass",
    )
