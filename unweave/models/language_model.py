"""An unmodified Hugging Face model with the two methods that matter here: ``capture`` and ``patch``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unweave.coders import SparseCoder
from unweave.errors import UserError
from unweave.models.hooks import Action, read_at, replace_at
from unweave.models.inputs import Inputs, blank_inputs, forward, logits_of, n_vocabulary, reads_tokens
from unweave.models.site import Handle, Site
from unweave.models.sites import SiteMap
from unweave.types import Codes

if TYPE_CHECKING:
    from unweave.models.loading import Spread

EMBEDDED = "builtin:pylm"
"""Name of the small language model that comes with the package."""
_CPU_TOKENS = 2048
"""Tokens that a CPU takes through the model at once when it captures; with four times as many, each took 1.9 times
as long at width 256."""
_CPU_IMAGES = 8
"""Images that a CPU takes through the model at once; a usual one has 197 to 257 rows."""

Edit = Callable[[Tensor], Tensor]
"""From the activations [N, T, D] at a site to their replacement of the same shape."""


class LatentEdit(NamedTuple):
    """Change a coder's latents and keep what the coder does not explain: ``x + (decode(g(codes)) - decode(codes))``.

    Where ``change`` returns its argument, x comes back bit for bit. A coder that reads sequences needs all of a
    sequence in one pass, so no cache of keys and values.
    """

    coder: SparseCoder
    change: Callable[[Codes], Codes]

    def __call__(self, x: Float[Tensor, "N T D"]) -> Float[Tensor, "N T D"]:
        if self.coder.wiring.kind != "sae":
            raise UserError(
                f"a latent edit needs a coder that writes the site it reads, got a {self.coder.wiring.kind}"
            )
        if x.shape[-1] != self.coder.d_model:
            raise UserError(f"this coder reads rows of width {self.coder.d_model}, the site has width {x.shape[-1]}")
        read = (x if self.coder.reads_sequences else x.flatten(0, 1)).to(self.coder.W_dec.dtype)
        codes = self.coder.encode(read)
        delta = self.coder.reconstruct(self.change(codes), read) - self.coder.reconstruct(codes, read)
        return x + delta.view_as(x).to(x.dtype)


@dataclass(frozen=True)
class Pass:
    """What is seen of one whole pass of the model."""

    output: Any
    """What the model itself has returned."""
    activations: dict[str, Float[Tensor, "N *_"]]
    """Site, by the name that it was asked by, to what the model held there."""
    name: str
    """Of the model."""
    device: torch.device
    """Where the activations are, and the logits shall be."""

    @property
    def logits(self) -> Float[Tensor, "N *T V"]:
        """Raises ``UserError`` for a model that ends with hidden states."""
        return logits_of(self.output, self.name).to(self.device)


class LanguageModel:
    """A model whose activations can be captured and patched at named sites.

    It reads tokens, and says what comes next; an encoder, a vision model or any other module can be wrapped as well.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        """Wrap a loaded model (kept as it is, in eval mode, without gradients) and its tokenizer, which may be None.

        A module without a Hugging Face config is called with token ids and returns its logits.
        """
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.sites = SiteMap(model)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = EMBEDDED,
        *,
        device: str = "cpu",
        dtype: str | torch.dtype = "float32",
        spread: "Spread | None" = None,
    ) -> "LanguageModel":
        """Load ``builtin:pylm``, a local Hugging Face folder, or a model id of the hub; safetensors weights only.

        ``spread``: for a model that is larger than one device, ``"devices"`` puts its blocks on all of this machine,
        and a mesh of processes, which must all load it, gives each a part of every matrix. What is captured is whole,
        and on the device of the embedding.
        """
        from unweave.models.loading import check_device, load_model_and_tokenizer

        check_device(device)
        name = str(name_or_folder)
        model, tokenizer = load_model_and_tokenizer(name, str(dtype).removeprefix("torch."), spread)
        is_folder = Path(name).expanduser().is_dir()
        model = model if spread is not None else model.to(device)
        return cls(model, tokenizer, str(Path(name).expanduser().resolve()) if is_folder else name)

    def __repr__(self) -> str:
        n_layers = getattr(self._config, "num_hidden_layers", None)
        layers = "" if n_layers is None else f"{n_layers} layers, "
        return f"LanguageModel({self.name!r}, {layers}on {self.device})"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def max_context(self) -> int | None:
        """The longest sequence the model was made for, or None where its config sets no limit."""
        return getattr(self._config, "max_position_embeddings", None)

    @property
    def n_vocabulary(self) -> int:
        return n_vocabulary(self.model) or self.logits(blank_inputs(self.model, 1)).shape[-1]

    @property
    def _config(self) -> Any:
        return self.model.config.get_text_config() if hasattr(self.model, "config") else None

    def tokens(self, text: str, *, prepend_bos: bool = True) -> Int[Tensor, "1 T"]:
        """The text as one sequence, with the beginning-of-text token in front where the tokenizer has one.

        A coder that was trained without it says so in ``coder.origin.prepend_bos``.
        """
        if self.tokenizer is None:
            raise UserError(f"{self.name} has no tokenizer files, so it cannot read text; add its tokenizer.json")
        bos = self.tokenizer.bos_token_id if prepend_bos else None
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor([ids if bos is None else [bos, *ids]])

    def width(self, site: str) -> int:
        """Width of the activations at a site, found by a pass on one token or image."""
        if not self.sites.resolve(site).has_rows:
            raise UserError(f"{site} has numbers for pairs of tokens, not a row for each, so it has no width")
        return next(iter(self.capture(blank_inputs(self.model, 1), [site]).values())).shape[-1]

    @torch.no_grad()
    def logits(self, tokens: Inputs) -> Float[Tensor, "N *T V"]:
        """Next-token logits, with the edits of any open ``patch``."""
        return self.run(tokens).logits

    def run(self, tokens: Inputs, sites: Sequence[str] = ()) -> Pass:
        """A whole pass with the edits of any open ``patch``, through which gradients flow where they are on.

        What no edit has touched has no graph: the model's own parameters take no gradient.
        """
        resolved = {name: self.sites.resolve(name) for name in sites}
        seen: dict[Site, Tensor] = {}

        def read(site: Site, x: Tensor) -> None:
            seen[site] = x.to(self.device)

        with self._hooked(dict.fromkeys(resolved.values(), read), read_at):
            output = forward(self.model, tokens.to(self.device))
        if silent := [name for name, site in resolved.items() if site not in seen]:
            raise self._never_fired(silent)
        return Pass(output, {name: seen[site] for name, site in resolved.items()}, self.name, self.device)

    @torch.no_grad()
    def capture(self, tokens: Inputs, sites: Sequence[str] | str) -> dict[str, Float[Tensor, "N *_"]]:
        """Activations at each site, under the name that it was asked by; the pass ends at the deepest of them.

        No cache of keys and values is built and no logits are computed. A CPU takes a few sequences at a time, whose
        hidden activations stay in its cache. The tensors are the model's own: do not write to them.
        """
        names = [sites] if isinstance(sites, str) else sites
        at_once = len(tokens)
        if self.device.type == "cpu":
            at_once = max(1, _CPU_TOKENS // max(1, tokens.shape[1])) if reads_tokens(self.model) else _CPU_IMAGES
        if len(tokens) <= at_once:
            return self._capture(tokens, names)
        parts = [self._capture(part, names) for part in tokens.split(at_once)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _capture(self, tokens: Inputs, names: Sequence[str]) -> dict[str, Float[Tensor, "N *_"]]:
        resolved = {name: self.sites.resolve(name) for name in names}
        if not resolved:
            raise UserError("capture needs at least one site, got none; for example layers.0.resid_post")
        captured: dict[Site, Tensor] = {}
        wanted = set(resolved.values())
        rows = tokens.shape if reads_tokens(self.model) else tokens.shape[:1]
        what = "tokens" if reads_tokens(self.model) else "images"

        def read(site: Site, x: Tensor) -> None:
            if site.has_rows and x.shape[: len(rows)] != rows:
                raise UserError(f"{site.name} holds {list(x.shape)}, not a row for each of the {list(rows)} {what}")
            captured[site] = x.to(self.device)
            if len(captured) == len(wanted):
                raise _AllCaptured

        with self._hooked(dict.fromkeys(wanted, read), read_at):
            try:
                forward(self.model, tokens.to(self.device))
            except _AllCaptured:
                return {name: captured[site] for name, site in resolved.items()}
        raise self._never_fired([name for name, site in resolved.items() if site not in captured])

    @contextmanager
    def patch(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Within the block, every forward pass of the model goes on from the edited activations.

        Raises ``UserError`` on leaving if the model ran nothing at one of the sites.
        """
        resolved = {self.sites.resolve(name): edit for name, edit in edits.items()}
        for site in resolved:
            if site.is_read_only:
                instead = site.name.replace("router", "routing")
                raise UserError(f"an edit at {site.name} would come after experts were chosen; edit {instead} instead")
        fired: set[str] = set()

        def applying(edit: Edit) -> Action:
            def apply(site: Site, x: Tensor) -> Tensor | None:
                if self.sites.is_probing:
                    return None
                fired.add(site.name)
                new = edit(x.to(self.device))
                if not isinstance(new, Tensor) or new.shape != x.shape:
                    came = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
                    raise UserError(f"the edit at {site.name} must return a tensor {list(x.shape)}, it returned {came}")
                return new.to(x.device)

            return apply

        with self._hooked({site: applying(edit) for site, edit in resolved.items()}, replace_at):
            yield
        if silent := [site.name for site in resolved if site.name not in fired]:
            raise self._never_fired(silent)

    @contextmanager
    def _hooked(self, actions: Mapping[Site, Action], register: Callable[..., list[Handle]]) -> Iterator[None]:
        handles: list[Handle] = []
        try:
            for site, action in actions.items():
                handles += register(self.model, site, action)
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _never_fired(self, names: list[str]) -> UserError:
        return UserError(
            f"the forward pass never reached {', '.join(names)}{self.sites.near(names[0])}; "
            "run the model within the block, or name one of its own sites"
        )


class _AllCaptured(Exception):
    """Ends a forward pass once every site was read."""
