"""What a variant says, checked where it is made; a new property of a variant is added here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from photoflux.data.checks import check_finite, check_whole
from photoflux.errors import SettingError, unknown_name
from photoflux.model.architectures import ARCHITECTURES, NETWORK, TRANSFER, dropout_groups, penalty_groups
from photoflux.model.networks import file_of, parts_of

BALANCES = ("none", "weights", "augment")
# Each with its name in a sentence.
LOSSES = {"cross_entropy": "cross-entropy", "squared_error": "squared error"}


class _Fixed(dict[str, Any]):
    """A dict that cannot be changed, so that what was checked stays; a copy and JSON are as those of any other."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("A variant cannot be changed. Make another from it with `dataclasses.replace`.")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return _Fixed, (dict(self),)


@dataclass(frozen=True)
class Variant:
    """What is trained, by name: architecture, penalty, dropout, early stopping, optimiser and loss.

    It is checked where it is made, and cannot be changed: its mappings are copies of those given.

    Attributes
    ----------
    name : str
        Its name: letters, digits, ``_`` and ``-``.
    architecture : str
        ``"photo_cnn"``, ``"dense"``, ``"transfer"``: Dense layers on a backbone's features, standardised; or
        ``"chain"``: a network of your own, made by a Julia file.
    hidden : tuple of int
        Units of the hidden Dense layers, each 1 or more.
    epochs, batch_size, image_size : int
        Defaults of a fit.
    learning_rate : float
        Adam's learning rate, above 0.
    made_for : str
        The data for which its document made it.
    penalty : mapping of str to mapping of str to float
        ``{"conv" | "hidden" | "output": {"l1": λ₁, "l2": λ₂}}``, of a network of your own ``{"kernels": …}``, Keras'
        convention λ₁·Σ|w| + λ₂·Σw² on kernels; the
        groups are those of `photoflux.model.architectures.penalty_groups`.
    dropout : mapping of str to float
        ``{"pool" | "hidden": rate}``, each from 0 to below 1; the groups are those of
        `photoflux.model.architectures.dropout_groups`.
    patience : int or None
        Epochs without a lower total validation loss before the fit stops; None: no early stopping.
    loss : str
        ``"cross_entropy"`` on logits, or ``"squared_error"``: 0.5·mean((softmax(z) − onehot)²).
    backbone : str or None
        Of the architecture ``"transfer"`` alone, which must have it: what makes features of images. A name of
        ``julia/backbones.toml``, several joined by ``+``, or an ONNX file.
    proximal : bool
        Whether L1 is no part of the gradient but a proximal step after each step of Adam, in Adam's own metric
        (ProxGen; Yun, Lozano & Yang, 2021): w ← sign(w)·max(|w| − αₜ·λ₁/(√v + ε), 0), which makes weights exactly 0.

    balance : str
        How classes of different sizes are balanced unless the user says otherwise: ``"none"``, ``"weights"`` or
        ``"augment"``; see `photoflux.model.settings.Settings`.
    chain : mapping or None
        Of the architecture ``"chain"`` alone, which must have it: the network as data, which Julia makes of a file, or
        until then the file and its function; see `photoflux.model.networks`.

    Raises
    ------
    SettingError
        If a value is of the wrong type or out of range, or the architecture has no such group.

    Examples
    --------
    >>> Variant("mine", "dense", hidden=(64,), penalty={"conv": {"l2": 0.01}})
    Traceback (most recent call last):
    photoflux.errors.SettingError: `penalty` of the architecture dense must be one of hidden, output; received: 'conv'.
    """

    name: str
    architecture: str
    hidden: tuple[int, ...]
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.001
    image_size: int = 180
    made_for: str = ""
    penalty: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dropout: Mapping[str, float] = field(default_factory=dict)
    patience: int | None = None
    loss: str = "cross_entropy"
    backbone: str | None = None
    proximal: bool = False
    balance: str = "none"
    chain: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[\w-]+", self.name):
            raise SettingError(f"`name` must be letters, digits, `_` and `-`; received: {self.name!r}.")
        if not isinstance(self.made_for, str):
            raise SettingError(f"`made_for` must be a text; received: {self.made_for!r}.")
        allowed = {"architecture": list(ARCHITECTURES), "loss": list(LOSSES), "balance": list(BALANCES)}
        for argument, known in allowed.items():
            if getattr(self, argument) not in known:
                raise unknown_name(argument, getattr(self, argument), known)
        if not isinstance(self.hidden, list | tuple):
            raise SettingError(f"`hidden` must be a list of whole numbers, 1 or more; received: {self.hidden!r}.")
        checked = {
            "hidden": tuple(check_whole("Each of `hidden`", units, 1) for units in self.hidden),
            "epochs": check_whole("`epochs`", self.epochs, 1),
            "batch_size": check_whole("`batch_size`", self.batch_size, 1),
            "image_size": check_whole("`image_size`", self.image_size, 2),
            "learning_rate": check_learning_rate(self.learning_rate),
            "patience": None if self.patience is None else check_whole("`patience`", self.patience, 1),
            "penalty": self._checked_penalty(),
            "dropout": self._checked_dropout(),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._check_backbone()
        self._check_proximal()
        self._check_chain()

    def _check_chain(self) -> None:
        if self.architecture != NETWORK:
            if self.chain is not None:
                raise SettingError(f"`chain` belongs to the architecture {NETWORK} alone. Leave it out.")
            return
        if not isinstance(self.chain, Mapping):
            raise SettingError(
                f"`chain` of the architecture {NETWORK} must be a network as Julia describes it; received: "
                f"{self.chain!r}. Name the file that makes it: my_model.jl:build."
            )
        if self.hidden or self.proximal:
            raise SettingError("A network of your own has its own layers: leave `hidden` empty, and `proximal` out.")
        if file_of(self.chain) is None:
            parts_of(self.chain)
        object.__setattr__(self, "chain", _fixed(self.chain))

    @property
    def made_by(self) -> str | None:
        """The Julia file and function that make its network, and have not yet; None of all others."""
        file = file_of(self.chain)
        return None if file is None else f"{file.path}:{file.function}"

    def _check_backbone(self) -> None:
        if self.takes_features:
            if not isinstance(self.backbone, str) or not self.backbone.strip():
                raise SettingError(
                    f"`backbone` of the architecture {TRANSFER} must be the name of one, such as 'efficientnet-lite2', "
                    f"or an ONNX file; received: {self.backbone!r}."
                )
        elif self.backbone is not None:
            raise SettingError(
                f"`backbone` belongs to the architecture {TRANSFER} alone; received {self.backbone!r} for "
                f"{self.architecture}. Leave it out."
            )

    def _check_proximal(self) -> None:
        if not isinstance(self.proximal, bool):
            raise SettingError(f"`proximal` must be True or False; received: {self.proximal!r}.")
        if self.proximal and not any(coefficients.get("l1") for coefficients in self.penalty.values()):
            raise SettingError(
                f"`proximal` needs an L1 above 0 in `penalty`; received: {dict(self.penalty)!r}. "
                "Give an `l1`, or leave out `proximal`."
            )

    @property
    def takes_features(self) -> bool:
        """Whether it is fitted to a backbone's features, float32 (N, features, 1, 1), and not to images."""
        return self.architecture == TRANSFER

    def _checked_penalty(self) -> Mapping[str, Mapping[str, float]]:
        self._check_groups("penalty", penalty_groups)
        checked = {}
        for group, coefficients in self.penalty.items():
            if not isinstance(coefficients, Mapping):
                raise SettingError(f"`penalty` on {group} must be coefficients by name; received: {coefficients!r}.")
            numbers = {}
            for name, value in coefficients.items():
                if name not in ("l1", "l2"):
                    raise unknown_name("penalty", name, ("l1", "l2"), f" on {group}")
                expected = f"a finite number, 0 or more (penalty on {group})"
                numbers[name] = check_finite(f"`{name}`", value, expected, lambda x: x >= 0)
            checked[group] = _Fixed(numbers)
        return _Fixed(checked)

    def _checked_dropout(self) -> Mapping[str, float]:
        self._check_groups("dropout", dropout_groups)
        expected = "a number from 0 to below 1"
        return _Fixed(
            (group, check_finite(f"`dropout` of {group}", rate, expected, lambda x: 0 <= x < 1))
            for group, rate in self.dropout.items()
        )

    def _check_groups(self, argument: str, groups_of: Callable[[str, Sequence[int]], list[str]]) -> None:
        value, known = getattr(self, argument), groups_of(self.architecture, self.hidden)
        of = f" of the architecture {self.architecture}" + ("" if self.hidden else " without hidden layers")
        if not isinstance(value, Mapping):
            raise SettingError(f"`{argument}`{of} must be a mapping by group; received: {value!r}.")
        for group in value:
            if not known:
                raise SettingError(f"`{argument}`{of} must be empty; received: {value!r}.")
            if group not in known:
                raise unknown_name(argument, group, known, of)

    def with_penalty(self, *, l1: float | None = None, l2: float | None = None) -> Variant:
        """Return the variant with another L1 or L2 coefficient on every kernel that it penalises.

        Parameters
        ----------
        l1, l2 : float, optional
            The coefficients, 0 or more; None leaves the table's.

        Returns
        -------
        Variant

        Raises
        ------
        SettingError
            If a coefficient is negative or not finite, or the variant has no penalty.
        """
        given = {name: value for name, value in (("l1", l1), ("l2", l2)) if value is not None}
        penalty = self.penalty or ({"kernels": {}} if self.architecture == NETWORK else {})
        if given and not penalty:
            raise SettingError(
                f"The variant {self.name!r} has no penalty, so `{next(iter(given))}` cannot be set. "
                "Take one that has; `photoflux variants` lists them."
            )
        groups = {group: {**coefficients, **given} for group, coefficients in penalty.items()}
        return dataclasses.replace(self, penalty=groups if given else self.penalty)

    def as_dict(self) -> dict[str, Any]:
        """Return the variant as plain JSON-ready values; what is like `backbone` only where it is set."""
        values = {**dataclasses.asdict(self), "hidden": list(self.hidden)}
        unset = {"backbone": None, "proximal": False, "balance": "none", "chain": None}
        return {name: value for name, value in values.items() if name not in unset or value != unset[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """Build a variant from what `as_dict` returned.

        Parameters
        ----------
        values : mapping of str to any
            The values by name; those of `name` to `made_for` must be there.

        Raises
        ------
        SettingError
            If a field is missing, unknown or cannot be used.
        """
        if not isinstance(values, Mapping):
            raise SettingError(f"A variant must be given by its fields; received: {values!r}.")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("field", name, known, " of a variant")
        missing = [name for name in known[: known.index("penalty")] if name not in values]
        if missing:
            raise SettingError(f"A variant must say its {', '.join(missing)}; received: {', '.join(values)}.")
        made = cls(**values)
        if made.made_by is not None:
            raise SettingError(f"A file may not name a Julia file to run; received: {made.made_by}. Name it yourself.")
        return made


def _fixed(value: Any) -> Any:
    """Return JSON-ready values of which none can be changed."""
    if isinstance(value, Mapping):
        return _Fixed((name, _fixed(inner)) for name, inner in value.items())
    return tuple(map(_fixed, value)) if isinstance(value, list | tuple) else value


def check_learning_rate(rate: object) -> float:
    """Return a learning rate; raise a `SettingError` unless it is finite and above 0."""
    return check_finite("`learning_rate`", rate, "a finite number above 0", lambda x: x > 0)
