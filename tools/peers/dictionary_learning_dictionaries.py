# pyright: reportMissingImports=false
"""dictionary_learning's own dictionaries as cases: every class, old names, thresholds never set, and backups."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import LATENTS, WIDTH, Found, Library, batches, main, rows, save_expected, stir
from dictionary_learning.dictionary import AutoEncoder, AutoEncoderNew, GatedAutoEncoder, JumpReluAutoEncoder
from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
from dictionary_learning.trainers.gated_anneal import GatedAnnealTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE, MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
from dictionary_learning.training import trainSAE
from torch import Tensor

K, THRESHOLD = 4, 0.7
GROUPS = [4, 4, 5]
CASES: dict[str, Callable[[], Any]] = {
    "auto_encoder": lambda: AutoEncoder(WIDTH, LATENTS),
    "auto_encoder_new": lambda: AutoEncoderNew(WIDTH, LATENTS),
    "gated": lambda: GatedAutoEncoder(WIDTH, LATENTS),
    "jumprelu": lambda: JumpReluAutoEncoder(WIDTH, LATENTS),
    "topk": lambda: AutoEncoderTopK(WIDTH, LATENTS, K),
    "batch_topk": lambda: BatchTopKSAE(WIDTH, LATENTS, K),
    "matryoshka": lambda: MatryoshkaBatchTopKSAE(WIDTH, LATENTS, K, GROUPS),
}
CLASSES = {
    new.__name__: new
    for new in (
        AutoEncoder,
        AutoEncoderNew,
        GatedAutoEncoder,
        JumpReluAutoEncoder,
        AutoEncoderTopK,
        BatchTopKSAE,
        MatryoshkaBatchTopKSAE,
    )
}
TRAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "standard": (StandardTrainer, {}),
    "april_update": (StandardTrainerAprilUpdate, {}),
    "p_anneal": (PAnnealTrainer, {"sparsity_function": "Lp^p", "p_end": 0.2, "anneal_start": 10}),
    "gated": (GatedSAETrainer, {}),
    "gated_anneal": (GatedAnnealTrainer, {"sparsity_function": "Lp^p", "p_end": 0.2, "anneal_start": 10}),
    "jumprelu": (JumpReluTrainer, {}),
    "topk": (TopKTrainer, {"k": K, "threshold_start_step": 10}),
    "batch_topk": (BatchTopKTrainer, {"k": K, "threshold_start_step": 10}),
    "matryoshka": (MatryoshkaBatchTopKTrainer, {"k": K, "threshold_start_step": 10, "group_fractions": [0.3, 0.7]}),
}


def make(folder: Path) -> None:
    for number, (name, new) in enumerate(CASES.items()):
        dictionary = new()
        stir(dictionary, number)
        if name in ("batch_topk", "matryoshka"):
            dictionary.threshold.fill_(THRESHOLD)
        _save(folder / name, dictionary)
    _make_unset(folder / "batch_topk_unset", BatchTopKSAE(WIDTH, LATENTS, K), 20)
    _make_unset(folder / "matryoshka_unset", MatryoshkaBatchTopKSAE(WIDTH, LATENTS, K, GROUPS), 21)
    _make_old(folder / "topk_old")
    _make_backup(folder / "batch_topk_backup")
    _make_checkpoint(folder / "gated_checkpoint")


def train(folder: Path, steps: int) -> None:
    """Dictionaries that their own ``trainSAE`` trained, on rows that it scales itself where the class can."""
    for name, (trainer, settings) in TRAINERS.items():
        config = {
            "trainer": trainer,
            "activation_dim": WIDTH,
            "dict_size": LATENTS,
            "layer": 3,
            "lm_name": "some/model",
        }
        config |= {"steps": steps, "warmup_steps": 2, "lr": 3e-3, "device": "cpu", "seed": 0} | settings
        if "TopK" not in trainer.__name__:
            config["sparsity_warmup_steps"] = 5
        if "seed" in config and trainer is JumpReluTrainer:
            torch.manual_seed(0)
        scales = name != "april_update"
        torch.manual_seed(0)
        trainSAE(
            _Rows(batches(steps + 101, WIDTH)), [config], steps, save_dir=str(folder / name), device="cpu",
            normalize_activations=scales,
        )  # fmt: skip
        for file in (folder / name / "trainer_0").iterdir():
            file.rename(folder / name / file.name)
        (folder / name / "trainer_0").rmdir()
        _tell(folder / name)


def run(case: Path, x_BD: Tensor) -> Found:
    """As ``dictionary_learning.utils.load_dictionary``, whose module needs packages that nothing here needs."""
    trainer = json.loads((case / "config.json").read_text())["trainer"]
    settings = {"k": trainer["k"]} if "k" in trainer else {}
    return _run(CLASSES[trainer["dict_class"]].from_pretrained(case / "ae.pt", **settings), x_BD)


def _config(dictionary: Any) -> dict[str, Any]:
    trainer = {"dict_class": type(dictionary).__name__, "activation_dim": WIDTH, "dict_size": LATENTS, "layer": 3}
    trainer |= {"lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3"}
    if hasattr(dictionary, "k"):
        trainer["k"] = dictionary.k.item()
    return {"trainer": trainer, "buffer": {"d_submodule": WIDTH, "io": "out", "ctx_len": 128}}


def _save(case: Path, dictionary: Any) -> None:
    case.mkdir(parents=True)
    torch.save(dictionary.state_dict(), case / "ae.pt")
    (case / "config.json").write_text(json.dumps(_config(dictionary)))
    _tell(case)


def _tell(case: Path) -> None:
    x_BD = rows()
    save_expected(case, x_BD, run(case, x_BD))


@torch.no_grad()
def _run(dictionary: Any, x_BD: Tensor) -> Found:
    codes_BL = dictionary.encode(x_BD)
    return Found(codes_BL, dictionary.decode(codes_BL))


@torch.no_grad()
def _make_unset(case: Path, dictionary: Any, seed: int) -> None:
    """A run shorter than ``threshold_start_step``; what it was trained as is a batch's TopK, here of each row alone."""
    stir(dictionary, seed)
    _save(case, dictionary)
    x_BD = rows()
    codes_BL = torch.cat([dictionary.encode(row_1D, use_threshold=False) for row_1D in x_BD.split(1)])
    save_expected(case, x_BD, Found(codes_BL, dictionary.decode(codes_BL)))


def _make_old(case: Path) -> None:
    """What is called b_dec was called bias, and k was in the config alone."""
    dictionary = AutoEncoderTopK(WIDTH, LATENTS, K)
    stir(dictionary, 30)
    _save(case, dictionary)
    state = dictionary.state_dict()
    state["bias"] = state.pop("b_dec")
    torch.save({name: tensor for name, tensor in state.items() if name not in ("k", "threshold")}, case / "ae.pt")


def _make_backup(case: Path) -> None:
    """What newer versions leave of a run on scaled rows that was interrupted."""
    dictionary = BatchTopKSAE(WIDTH, LATENTS, K)
    stir(dictionary, 40)
    dictionary.threshold.fill_(THRESHOLD)
    _save(case, dictionary)
    optimizer = torch.optim.Adam(dictionary.parameters()).state_dict()
    state = {name: tensor.clone() for name, tensor in dictionary.state_dict().items()}
    backup = {
        "step": 50,
        "ae": state,
        "optimizer": optimizer,
        "config": _config(dictionary)["trainer"],
        "norm_factor": 1.6,
    }
    torch.save(backup, case / "ae.pt")
    dictionary.scale_biases(1.6)
    save_expected(case, rows(), _run(dictionary, rows()))


def _make_checkpoint(case: Path) -> None:
    """One of the weights that ``save_steps`` leaves on the way."""
    dictionary = GatedAutoEncoder(WIDTH, LATENTS)
    stir(dictionary, 50)
    _save(case, dictionary)
    (case / "checkpoints").mkdir()
    (case / "ae.pt").rename(case / "checkpoints" / "ae_100.pt")


class _Rows:
    """Batches in order, as often as they are asked for."""

    def __init__(self, data: list[Tensor]) -> None:
        self._data = iter(data)
        self.config = {"d_submodule": WIDTH, "io": "out"}

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> Tensor:
        return next(self._data).clone()


if __name__ == "__main__":
    main(Library(make, train, run))
