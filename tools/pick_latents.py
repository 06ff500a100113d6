"""Write docs/latents.md: latents of a run that read as one thing, chosen by rules that the page states.

python tools/pick_latents.py runs/demo
"""

import html
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from unweave.latent_record import Example, LatentRecord
from unweave.storage.run_folder import Run

OUT = Path(__file__).parent.parent / "docs" / "latents.md"
DENSITY = (2e-4, 1e-2)
PER_RULE = 3
SHOWN = 5


class Rule(NamedTuple):
    """One way in which the examples of a latent can agree."""

    title: str
    statement: str
    place: int
    """Where the agreeing token stands, relative to the peak."""
    agreeing: int
    """How many of the eight examples must agree."""
    fewest_peaks: int
    """How many different tokens must be at the peak."""


RULES = (
    Rule("One token", "all eight examples peak on the same token;", 0, 8, 1),
    Rule("What came before", "or six have the same token before the peak, on four or more different peaks;", -1, 6, 4),
    Rule("What comes next", "or six have the same token after the peak, on four or more different peaks.", 1, 6, 4),
)


def main() -> None:
    run = Run(sys.argv[1])
    records, vocabulary = list(run.latents), run.latents.vocabulary()
    taken: set[int] = set()
    lines = [_head(run, records)]
    for rule in RULES:
        picked = [r for r in _fitting(records, rule, vocabulary) if r.latent not in taken][:PER_RULE]
        taken |= {record.latent for record in picked}
        n_fitting = len(_fitting(records, rule, vocabulary, distinct=False))
        lines.append(f"## {rule.title}\n\n{n_fitting} latents fit this rule; these are the strongest.\n")
        lines += [_section(record, rule, vocabulary) for record in picked]
    OUT.write_text("\n".join(lines).rstrip() + "\n")


def _head(run: Run, records: list[LatentRecord]) -> str:
    alive = sum(record.n_fires > 0 for record in records)
    rules = "\n".join(f"{i}. {rule.statement}" for i, rule in enumerate(RULES, start=1))
    return f"""# Latents of the demo

`make demo` takes the residual stream after the third layer of the embedded model apart into {len(records):,} latents,
of which {alive:,} fired on {run.results["n_tokens"]:,} held-out tokens. The latents below were chosen by rule, not by
hand, from the report's own records (`python tools/pick_latents.py runs/demo`).

Candidates fire on {DENSITY[0]:.2%} to {DENSITY[1]:.0%} of tokens and have eight examples, each from another sequence.
A candidate fits if

{rules}

Of those that fit, the {PER_RULE} with the largest activation are shown, one for each agreeing token; tokens of white
space alone are passed over. The marked token is where the latent is strongest, `↵` is a line end. Rules find agreement,
not meaning: most of these read as one thing, some as a habit of spelling.
"""


def _fitting(
    records: list[LatentRecord], rule: Rule, vocabulary: list[str], *, distinct: bool = True
) -> list[LatentRecord]:
    """Records that fit the rule, strongest first; with ``distinct`` one for each agreeing token."""
    found: dict[object, LatentRecord] = {}
    for record in sorted(records, key=lambda record: -record.max_activation):
        if not DENSITY[0] <= record.density <= DENSITY[1] or len(record.examples) < 8:
            continue
        tokens = [_at(example, rule.place) for example in record.examples]
        peaks = {_at(example, 0) for example in record.examples}
        agreeing, count = Counter(tokens).most_common(1)[0]
        if agreeing is None or count < rule.agreeing or len(peaks) < rule.fewest_peaks:
            continue
        if vocabulary[agreeing].strip():
            found.setdefault(vocabulary[agreeing].strip().casefold() if distinct else record.latent, record)
    return list(found.values())


def _at(example: Example, place: int) -> int | None:
    index = example.peak + place
    return example.token_ids[index] if 0 <= index < len(example.token_ids) else None


def _section(record: LatentRecord, rule: Rule, vocabulary: list[str]) -> str:
    agreeing = vocabulary[Counter(_at(example, rule.place) for example in record.examples).most_common(1)[0][0] or 0]
    peaks = Counter(vocabulary[_at(example, 0) or 0] for example in record.examples)
    where = {0: "on", -1: "after", 1: "before"}[rule.place]
    title = f"### Latent {record.latent}: {where} {_code(agreeing)}\n"
    seen = ", ".join(_code(token) for token in peaks)
    facts = f"Fires on {record.density:.2%} of tokens, on {seen} in its strongest examples."
    promoted = "Promotes " + ", ".join(_code(vocabulary[weight.token_id]) for weight in record.promoted[:6]) + "."
    examples = "<br>\n".join(_example(example, vocabulary.__getitem__) for example in record.examples[:SHOWN])
    return f"{title}\n{facts} {promoted}\n\n<p>\n{examples}\n</p>\n"


def _example(example: Example, text_of: Callable[[int], str]) -> str:
    parts = []
    for i, token_id in enumerate(example.token_ids):
        text = _escaped(text_of(token_id))
        parts.append(f"<mark><b>{text}</b></mark>" if i == example.peak else text)
    return f"<code>{''.join(parts)}</code> <small>{html.escape(example.document)}</small>"


def _code(token: str) -> str:
    return f"<code>{_escaped(token.replace(' ', '·'))}</code>"


def _escaped(token: str) -> str:
    """Text that neither HTML nor Markdown reads as markup."""
    shown = html.escape(token.replace("\n", "↵").replace("\t", "⇥"))
    return "".join(f"&#{ord(c)};" if c in "_*`[]\\{}|~" else c for c in shown)


if __name__ == "__main__":
    main()
