"""Which latents a text is made of: the strongest at each token, and the strongest over all of it.

Activations count by their size, since some coders have negative ones. A latent's share is its activation over the
largest that it had on the text of its index. Its surprise is its largest share over its density: how strong it is here,
for how seldom it fires. A latent that never fired there counts as one that fired once, at what it has here.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Order = Literal["max", "sum", "surprise"]


class Fired(NamedTuple):
    """Where latents fire on a text, and how strongly; in order of places."""

    places: Int[np.ndarray, " E"]
    latents: Int[np.ndarray, " E"]
    values: Float[np.ndarray, " E"]

    def where(self, keep: Bool[np.ndarray, " E"]) -> "Fired":
        """Some of the entries."""
        return Fired(self.places[keep], self.latents[keep], self.values[keep])

    def at(self, place: int) -> tuple[Int[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """Latents at one place, and how strongly each fires."""
        first, last = np.searchsorted(self.places, (place, place + 1))
        return self.latents[first:last], self.values[first:last]

    def along(self, latent: int, n_places: int) -> Float[np.ndarray, " T"]:
        """One latent at every place."""
        mine = self.latents == latent
        found = np.zeros(n_places)
        found[self.places[mine]] = self.values[mine]
        return found


class Usual(NamedTuple):
    """What is known of all latents from their index."""

    max_L: Float[np.ndarray, " L"]
    density_L: Float[np.ndarray, " L"]
    n_tokens: int
    """Of the index."""

    def shares(self, latents: Int[np.ndarray, " S"], values: Float[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
        """Activations over the largest that each latent had."""
        most = self.max_L[latents]
        return np.where(most > 0, np.abs(values) / np.where(most > 0, most, 1.0), 1.0)


class Standing(NamedTuple):
    """The latents that fire on a text, one entry for each."""

    latents: Int[np.ndarray, " S"]
    max: Float[np.ndarray, " S"]
    sum: Float[np.ndarray, " S"]
    n_fires: Int[np.ndarray, " S"]
    peaks: Int[np.ndarray, " S"]
    """The place at which each is strongest."""
    surprise: Float[np.ndarray, " S"]

    def order(self, by: Order) -> Int[np.ndarray, " S"]:
        """Entries from the strongest on, ties by latent."""
        return np.argsort(-getattr(self, by), kind="stable")


def standing(fired: Fired, usual: Usual) -> Standing:
    """What each latent does over the whole of a text."""
    sizes = np.abs(fired.values)
    order = np.lexsort((fired.places, -sizes, fired.latents))
    latents, first, counts = np.unique(fired.latents[order], return_index=True, return_counts=True)
    largest = sizes[order][first]
    sums = np.bincount(np.repeat(np.arange(len(latents)), counts), sizes[order], minlength=len(latents))
    density = np.maximum(usual.density_L[latents], 1 / max(1, usual.n_tokens))
    surprise = usual.shares(latents, largest) / density
    return Standing(latents, largest, sums, counts, fired.places[order][first], surprise)


def strongest_share(fired: Fired, usual: Usual, n_places: int) -> Float[np.ndarray, " T"]:
    """The largest share that any latent has at each place."""
    found = np.zeros(n_places)
    np.maximum.at(found, fired.places, usual.shares(fired.latents, fired.values))
    return found


def lane(values_T: Float[np.ndarray, " T"], n_bins: int) -> list[float]:
    """Activations along a text in at most so many bins, the largest of each by its size."""
    starts = np.unique(np.linspace(0, len(values_T), min(n_bins, len(values_T)), endpoint=False).astype(int))
    return np.maximum.reduceat(np.abs(values_T), starts).tolist() if len(values_T) else []
