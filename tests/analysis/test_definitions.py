"""Every figure of the comparisons is explained."""

import pkgutil
from importlib import import_module

import unweave.analysis
from unweave.analysis.definitions import definitions
from unweave.metrics import definitions as core_definitions


def test_every_figure_has_a_title_a_sentence_and_a_range() -> None:
    for name, definition in definitions().items():
        assert definition.name == name
        assert definition.title and definition.good and definition.meaning.endswith("."), name


def test_no_two_figures_share_a_name_or_a_title() -> None:
    found = [*definitions().values(), *core_definitions().values()]
    titles = [definition.title for definition in found if not definition.title.startswith("The same")]
    assert len({definition.name for definition in found}) == len(found)
    assert len(set(titles)) == len(titles)


def test_no_module_is_left_out() -> None:
    modules = [import_module(f"unweave.analysis.{m.name}") for m in pkgutil.iter_modules(unweave.analysis.__path__)]
    for module in modules:
        own = {definition.name for definition in getattr(module, "DEFINITIONS", ())}
        assert own <= set(definitions()), module.__name__
