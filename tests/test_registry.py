from pathlib import Path

import pytest

import unweave.coders
from unweave.coders import SparseCoder, architecture, architectures, trainable, trainable_architectures
from unweave.errors import UserError, nearest
from unweave.registry import classes_in, lookup


def test_an_architecture_is_called_as_its_file() -> None:
    folder = Path(unweave.coders.__file__).parent
    for name, cls in architectures().items():
        assert (folder / f"{name}.py").is_file()
        assert cls.__module__ == f"unweave.coders.{name}"
    assert {"batch_topk", "relu"} <= architectures().keys()


def test_every_file_that_defines_a_coder_is_registered() -> None:
    files = Path(unweave.coders.__file__).parent.glob("*.py")
    assert architectures().keys() == {path.stem for path in files if "(SparseCoder):" in path.read_text()}


def test_the_registry_is_in_alphabetical_order() -> None:
    assert list(architectures()) == sorted(architectures())


def test_every_architecture_explains_its_maths_in_the_docstring_of_its_file() -> None:
    for cls in architectures().values():
        doc = __import__(cls.__module__, fromlist=["doc"]).__doc__
        assert doc
        assert "y_hat" in doc, f"{cls.__module__} does not write its formula down"


def test_every_architecture_is_a_final_class_right_below_the_base() -> None:
    for cls in architectures().values():
        assert cls.__bases__ == (SparseCoder,)
        assert getattr(cls, "__final__", False), f"{cls.__name__} is not marked final"


def test_a_name_is_looked_up() -> None:
    assert architecture("relu") is architectures()["relu"]


def test_an_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(UserError, match=r"unknown coder type 'batchtopk'; did you mean 'batch_topk'.*known: .*relu"):
        architecture("batchtopk")


def test_a_name_like_nothing_known_gets_no_suggestion() -> None:
    with pytest.raises(UserError) as caught:
        lookup("zzz", {"relu": 1}, "coder type")
    assert str(caught.value) == "unknown coder type 'zzz' (known: relu)"


def test_a_package_without_such_classes_registers_nothing() -> None:
    assert classes_in("unweave.kernels", SparseCoder) == {}


def test_nearest_names_several_near_matches_best_first() -> None:
    assert nearest("resid_pos", ["mlp_out", "resid_pre", "resid_post"]) == "; did you mean 'resid_post' or 'resid_pre'?"
    assert nearest("xyz", ["mlp_out"]) == ""


def test_an_architecture_that_is_only_loaded_cannot_be_trained() -> None:
    assert architectures().keys() - trainable_architectures().keys() == {"temporal"}
    assert trainable("relu") is architectures()["relu"]
    with pytest.raises(
        UserError, match="type temporal can be loaded and measured, not trained; train one of: abs_topk"
    ):
        trainable("temporal")
