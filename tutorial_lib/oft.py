"""Orthogonal fine-tuning (Qiu et al. 2023): every adapted layer computes with W_eff = W R^T, R a learnt rotation.

    paths = oft.attach(unet, ["to_q", "to_k", "to_v", "to_out.0"], block_size=32)
    optimiser = torch.optim.AdamW(oft.parameters(unet), lr=1e-3)
    ...                           # train as usual: only the rotations learn, the base weights are never written
    oft.set_strength(unet, 0.5)   # Q halved; 0 is the base model, -1 the opposite turn
    oft.save(unet, "my-adapter")  # peft's OFT directory format
    oft.merge(unet)               # or oft.remove(unet): a plain model again

R = blockdiag(R_1 ... R_r), each R_i = (I + Q_i)(I - Q_i)^{-1} of a skew Q_i that starts at zero, so that training
starts at the base model exactly. A layer with n inputs has n (b - 1) / 2 trainable numbers at block size b: smaller
blocks are fewer numbers.

Targets are paths or the last parts of paths, as in peft: "to_q" means every layer called to_q, "attn2.to_k" the keys
of the second attentions only, "mid_block.attentions.0.proj_in" one layer. A model may carry several adapters by name;
at most one is active. Adapters move with the model (`to`) and are in its state dict as `<path>.rotations.<name>...`;
the base weights keep their names. To save a model without adapters, merge or remove them first.

How a layer computes is in `rotated.py`, the mathematics in `orthogonal.py`, the files in `formats.py`. Whatever is
wrong with the input raises before anything is changed: nothing is ever half attached.
"""

from __future__ import annotations

import difflib
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tutorial_lib import formats
from tutorial_lib.formats import Adapter
from tutorial_lib.rotated import ROTATED, Adapters, RotatedLayer, Rotation, Settings

# These read the weights of their layers without calling the layers, so that a rotation would silently do nothing.
READS_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


# ------------------------------------------------------------------ attach and use


def attach(
    model: nn.Module,
    targets: str | list[str],
    block_size: int,
    eps: float | None = None,
    block_share: bool = False,
    name: str = "default",
) -> list[str]:
    """Gives the targets a rotation of their inputs, zero at first, and makes it active. Returns the layers' paths.

    block_size: of R's blocks; must divide the inputs of every target (of a convolution: in_channels / groups * height
    * width). block_share: one block for the whole of a layer. All other parameters of the model are frozen.

    eps: COFT, the bound on how far a block may turn: ||Q||_F <= eps sqrt(b). A random direction then moves by at most
    2 eps of its length (root mean square), whatever the block size: eps = 0.05 is about 6 degrees. The paper's code
    takes eps' b^2 / sqrt(r) as the radius (without the root for shared blocks), which means something else at each
    width. In our terms that is eps = eps' b^1.5 / sqrt(r): 0.02 for its eps' = 6e-5 at 320 inputs and r = 4.

    Raises ValueError for targets that are unknown or cannot be rotated, a name that is taken, a block size that does
    not divide, an eps that is not positive.
    """
    layers = _find(model, targets)
    _check_block_size(layers, block_size)
    count = block_size * (block_size - 1) // 2
    vectors = {
        path: torch.zeros(1 if block_share else _inputs(layer) // block_size, count) for path, layer in layers.items()
    }
    _insert(model, [Adapter(vectors, block_share, eps, name=name)])
    return list(layers)


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """What there is to train of the active adapter: its rotations, or its magnitudes after `refit_magnitudes`."""
    return [p for rotation in _active(model).values() for p in rotation.parameters() if p.requires_grad]


def refit_magnitudes(model: nn.Module) -> None:
    """Re-scaled OFT: freezes the active rotations and gives each neuron a trainable factor s_i, 1 at first."""
    for path, rotation in _active(model).items():
        if rotation.magnitude is None:
            weight = model.get_submodule(path).weight
            rotation.magnitude = nn.Parameter(torch.ones(len(weight), device=weight.device))
        rotation.vector.requires_grad_(False)


def set_strength(model: nn.Module, s: float) -> None:
    """R becomes Cayley(s Q), a rotation at every s: 1 as trained, 0 the base model exactly, -1 the inverse rotation.

    Of the active adapter. Its magnitudes, if any, become 1 + s (s_i - 1).
    """
    _check_strength(s)
    _active(model)
    adapters = _adapters(model)
    adapters.settings[adapters.active].strength = float(s)


def activate(model: nn.Module, name: str | None) -> None:
    """Switches to another adapter of this model, or to the base model with None. Only the active one can learn."""
    adapters = _adapters(model)
    _check_known(adapters, name)
    adapters.active = name
    for other in adapters.settings:
        for rotation in adapters.rotations(other).values():
            rotation.requires_grad_(other == name)
            if rotation.magnitude is not None:
                rotation.vector.requires_grad_(False)


@torch.no_grad()
def rotations(model: nn.Module) -> dict[str, torch.Tensor]:
    """R of each layer of the active adapter, at its strength, by path: (r, b, b), or (1, b, b) for shared blocks."""
    return {path: _adapters(model).R(rotation) for path, rotation in _active(model).items()}


def effective_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """W_eff of each layer of the active adapter by path, in the weight's shape, float32 at least."""
    return {path: model.get_submodule(path).effective_weight() for path in _active(model)}


# ------------------------------------------------------------------ back to a plain model


@torch.no_grad()
def merge(model: nn.Module) -> list[str]:
    """Writes W_eff of the active adapter, at its strength, into the weights: a plain model. Returns the paths.

    It then saves as any other (`save_pretrained`). Refuses while there are other adapters, since those belong to the
    weights as they were.
    """
    adapters = _adapters(model)
    chosen = _active(model)
    if others := [other for other in adapters.settings if other != adapters.active]:
        raise ValueError(f"merging would spoil the other adapters, {others}: save and remove them first")
    for path, rotation in chosen.items():
        if not all(torch.isfinite(parameter).all() for parameter in rotation.parameters()):
            raise ValueError(f"the adapter holds numbers that are not finite in {path}: nothing was merged")
    for path in chosen:
        layer = model.get_submodule(path)
        layer.weight.copy_(layer.effective_weight())
    remove(model)
    return list(chosen)


def remove(model: nn.Module, name: str | None = None) -> None:
    """Takes one adapter away, or all of them. After the last, the model is what it was before the first, bit for bit.

    If the active one goes and others stay, the base model is active.
    """
    adapters = _adapters(model)
    _check_known(adapters, name)
    names = list(adapters.settings) if name is None else [name]
    for gone in names:
        for path in adapters.rotations(gone):
            del adapters.layers[path].rotations[gone]
        del adapters.settings[gone]
    for path in [path for path, layer in adapters.layers.items() if not len(layer.rotations)]:
        _make_plain(adapters.layers.pop(path))
    if adapters.active in names:
        adapters.active = None
    if not adapters.settings:
        adapters.release(model)
        del model._oft


def _make_plain(layer: RotatedLayer) -> None:
    del layer.rotations, layer.adapters
    layer.__class__ = next(plain for plain, rotated in ROTATED.items() if type(layer) is rotated)


# ------------------------------------------------------------------ files


def save(model: nn.Module, folder: str | Path) -> None:
    """All adapters of the model in peft's OFT format: "default" in the folder itself, others in folder/<name>.

    COFT's vectors are saved inside of their ball. Strength, eps and magnitudes come back with `load`; peft does not
    know them. Warnings say where peft would show something else.
    """
    adapters = _adapters(model)
    inputs = {path: _inputs(layer) for path, layer in adapters.layers.items()}
    for name, settings in adapters.settings.items():
        chosen = adapters.rotations(name)
        adapter = Adapter(
            vectors={path: rotation.in_ball() for path, rotation in chosen.items()},
            **vars(settings),
            name=name,
            active=name == adapters.active,
            magnitudes={path: r.magnitude.detach() for path, r in chosen.items() if r.magnitude is not None},
        )
        formats.write_peft(adapter, folder if name == "default" else Path(folder) / name, inputs)
    if wide := [path for path, layer in adapters.layers.items() if _kernel(layer) > 1]:
        warnings.warn(
            f"peft's own forward pass of convolutions wider than 1x1, such as {wide[0]}, is not a rotation: in peft, "
            "call merge_and_unload before using this adapter",
            stacklevel=2,
        )


def load(model: nn.Module, folder: str | Path, name: str | None = None) -> list[str]:
    """Adds the adapters of a folder and activates the one that was active when saved. Returns their names.

    folder: of `save`, or a peft OFT directory, or a checkpoint file of the paper's repository (see `formats`).
    name: another name for the adapter, if the folder holds one. Raises ValueError if the file is damaged or belongs to
    another model; the model is then as it was.
    """
    found = [formats.read_original(folder)] if Path(folder).is_file() else formats.read_peft_all(folder)
    if name is not None and len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} adapters, {[a.name for a in found]}: load them without a name")
    _insert(model, [adapter if name is None else replace(adapter, name=name) for adapter in found])
    return [adapter.name if name is None else name for adapter in found]


# ------------------------------------------------------------------ putting an adapter in place


def _insert(model: nn.Module, found: list[Adapter]) -> None:
    """Checks all adapters against the model, and only then puts them in place."""
    names = list(model._oft.settings) if hasattr(model, "_oft") else []
    for adapter in found:
        _check_name(adapter.name, names)
        _check_bound(adapter.eps)
        _check_strength(adapter.strength)
        _check_fit(model, adapter)
        names.append(adapter.name)
    made = [{path: _rotation(model, adapter, path) for path in adapter.vectors} for adapter in found]
    if not hasattr(model, "_oft"):
        model._oft = Adapters(model)
    for adapter, rotations_of in zip(found, made):
        for path, rotation in rotations_of.items():
            _rotated(model, path).rotations[adapter.name] = rotation
        model._oft.settings[adapter.name] = Settings(adapter.eps, adapter.block_share, adapter.strength)
    activate(model, next((adapter.name for adapter in found if adapter.active), model._oft.active))


def _rotation(model: nn.Module, adapter: Adapter, path: str) -> Rotation:
    device = model.get_submodule(path).weight.device
    vector, magnitude = adapter.vectors[path], adapter.magnitudes.get(path)
    size = formats.block_size(vector)
    return Rotation(
        vector.to(device, torch.float32, copy=True),
        size,
        None if adapter.eps is None else adapter.eps * size**0.5,
        None if magnitude is None else magnitude.to(device, torch.float32, copy=True),
    )


def _rotated(model: nn.Module, path: str) -> RotatedLayer:
    """The layer as one that can be rotated."""
    layer = model.get_submodule(path)
    if not isinstance(layer, RotatedLayer):
        layer.__class__ = ROTATED[type(layer)]
        layer.rotations, layer.adapters = nn.ModuleDict(), model._oft
        model._oft.layers[path] = layer
    return layer


def _inputs(layer: nn.Module) -> int:
    """n: the length of one row of W, flattened."""
    return layer.weight[0].numel()


def _kernel(layer: nn.Module) -> int:
    return layer.weight[0, 0].numel()


def _adapters(model: nn.Module) -> Adapters:
    if not hasattr(model, "_oft"):
        raise ValueError(f"this {type(model).__name__} has no OFT adapter: use oft.attach or oft.load first")
    return model._oft


def _active(model: nn.Module) -> dict[str, Rotation]:
    adapters = _adapters(model)
    if adapters.active is None:
        raise ValueError(f"no adapter is active: choose one of {list(adapters.settings)} with oft.activate")
    return adapters.rotations(adapters.active)


# ------------------------------------------------------------------ checking what comes in


def _find(model: nn.Module, targets: str | list[str]) -> dict[str, nn.Module]:
    """The layers that the targets mean, by path, in the model's order."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a torch model, such as pipe.unet, got {type(model).__name__}")
    targets = [targets] if isinstance(targets, str) else list(targets)
    if not targets:
        raise ValueError('targets are empty: name the layers to rotate, for example ["to_q", "to_v"]')
    paths = [path for path, _ in model.named_modules() if path]
    found = set()
    for target in targets:
        hits = [path for path in paths if f".{path}".endswith(f".{target}")]
        if not hits:
            raise ValueError(_unknown(model, target))
        for path in hits:
            _check_rotatable(model, path)
        found.update(hits)
    return {path: model.get_submodule(path) for path in paths if path in found}


def _unknown(model: nn.Module, target: str) -> str:
    """The message for a target that is nowhere: what is nearly called that, or else what there is."""
    layers = [path.split(".") for path, layer in model.named_modules() if isinstance(layer, tuple(ROTATED))]
    parts = str(target).count(".") + 1
    endings = sorted({".".join(path[-n:]) for path in layers for n in (1, parts)})
    near = difflib.get_close_matches(str(target), endings, 3)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Layers here end in {', '.join(endings[:12])}."
    return f"no layer of this {type(model).__name__} is called {target!r}. {hint}"


def _check_rotatable(model: nn.Module, path: str) -> None:
    layer, parent = model.get_submodule(path), model.get_submodule(path.rpartition(".")[0])
    if not isinstance(layer, RotatedLayer) and type(layer) not in ROTATED:
        inside = [f"{path}.{p}" for p, m in layer.named_modules() if p and isinstance(m, tuple(ROTATED))]
        hint = f" Inside of it there are {', '.join(inside[:4])}." if inside else ""
        raise ValueError(f"{path} is a {type(layer).__name__}: only torch's Linear and Conv2d can be rotated.{hint}")
    if isinstance(parent, READS_WEIGHTS):
        raise ValueError(
            f"{path} cannot be rotated: its {type(parent).__name__} reads the weight without calling the layer, and a "
            "rotation would do nothing"
        )
    if isinstance(layer, RotatedLayer) and layer.adapters is not getattr(model, "_oft", None):
        raise ValueError(f"{path} was adapted through another model that contains it: use that one here, too")


def _check_block_size(layers: dict[str, nn.Module], block_size: int) -> None:
    if not isinstance(block_size, int):
        raise ValueError(f"the block size must be a whole number, got {block_size!r}")
    common = math.gcd(*(_inputs(layer) for layer in layers.values()))
    possible = [b for b in range(2, common + 1) if common % b == 0]
    if block_size not in possible:
        path = next((p for p, layer in layers.items() if block_size < 2 or _inputs(layer) % block_size), "")
        raise ValueError(
            f"block size {block_size} does not divide the {_inputs(layers[path])} inputs of {path}. "
            + (f"These divide those of all targets: {', '.join(map(str, possible))}." if possible else "None does.")
        )


def _check_bound(eps: float | None) -> None:
    if eps is not None and not 0 < eps < math.inf:
        raise ValueError(f"COFT's eps must be a positive number, such as 0.05, or None for plain OFT; got {eps}")


def _check_strength(s: float) -> None:
    if not math.isfinite(s):
        raise ValueError(f"the strength must be a finite number, got {s}")


def _check_name(name: str, taken: list[str]) -> None:
    if not re.fullmatch(r"\w[\w-]*", name) or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f"{name!r} cannot name an adapter: use letters, digits, _ and -, and no word of ModuleDict's own"
        )
    if name in taken:
        raise ValueError(
            f"an adapter called {name!r} is on this model already: choose another name, or take that one away with "
            f"oft.remove(model, {name!r})"
        )


def _check_known(adapters: Adapters, name: str | None) -> None:
    if name is not None and name not in adapters.settings:
        raise ValueError(f"there is no adapter {name!r} on this model: expected one of {list(adapters.settings)}")


def _check_fit(model: nn.Module, adapter: Adapter) -> None:
    """An adapter that was made for this architecture: same paths, same shapes."""
    modules = dict(model.named_modules())
    for path, vector in adapter.vectors.items():
        if path not in modules:
            raise ValueError(f"the adapter belongs to another model: {_unknown(model, path)}")
        _check_rotatable(model, path)
        layer, size = modules[path], formats.block_size(vector)
        n, blocks = _inputs(layer), 1 if adapter.block_share else _inputs(layer) // size
        if n % size or len(vector) != blocks:
            raise ValueError(
                f"the adapter belongs to another model: {path} has {n} inputs here, and the adapter turns "
                f"{len(vector)} {'shared ' if adapter.block_share else ''}blocks of {size} there"
            )
        if adapter.source == "peft" and _kernel(layer) > 1:
            raise ValueError(
                f"{path} is a convolution wider than 1x1, which peft trains with a forward pass that is no rotation: "
                "merge this adapter with peft and save the model instead"
            )
    for path, magnitude in adapter.magnitudes.items():
        if path not in adapter.vectors or len(magnitude) != len(modules[path].weight):
            raise ValueError(f"the adapter is damaged or belongs to another model: magnitudes of {path} do not fit")
