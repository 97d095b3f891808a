"""Data sets of the studies: an embedded default, and canonical sets whose content is verified by checksum.

A set is read from ``$JALI_DATA`` (a folder with one sub-folder per set) when that is set, and is otherwise downloaded
once into the user's cache. The two never mix: a file missing from ``$JALI_DATA`` is an error, not a reason to download,
because a study must say which bytes it saw.

Adding a set = one function ``(root, seed) -> Dataset`` decorated with :func:`register`.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from jali.errors import DataError
from jali.kept import kept
from jali.plain import seed_of
from jali.sources import Source, cache, content_of, file_of, verified

if TYPE_CHECKING:
    from jali.speech import Clips

VALIDATION_FRACTION = 0.1  # of MNIST's 60 000 training images


class Split(NamedTuple):
    """Examples and their classes; unpacks as ``x, y``."""

    x: Tensor  # (N, steps, features) float32; pixels in [0, 1], sounds standardized
    y: Tensor  # (N,) int64 in 0..classes-1


@dataclass(frozen=True)
class Dataset:
    """A classification set of sequences, split deterministically by a seed.

    ``train`` fits weights, ``validation`` selects (criteria, ridge, epochs), ``test`` is read once, at the end.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    steps: int
    features: int


Loader = Callable[[Path | None, int], Dataset]
_LOADERS: dict[str, Loader] = {}


def register(name: str) -> Callable[[Loader], Loader]:
    """Register ``(root, seed) -> Dataset`` under ``name``; ``root`` is the folder of the sets, None to download."""

    def add(loader: Loader) -> Loader:
        _LOADERS[name] = loader
        return loader

    return add


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows, sorted."""
    return tuple(sorted(_LOADERS))


def load(name: str, root: str | Path | None = None, *, seed: int = 0) -> Dataset:
    """Load a data set by name: ``"digits"`` (embedded, 8 steps × 8 features), ``"mnist"`` (28 × 28),
    ``"speech-commands"`` (49 × 40, twelve spoken words), ``"speech-commands-400"`` (the same in 400 × 40), or one of the
    tables (1 step): ``"cancer"`` (9 features), ``"titanic"`` (6), ``"banknote"`` (4), ``"iris"`` (4), ``"iris-3"`` (3),
    ``"vowel"`` (3).

    ``root`` replaces ``$JALI_DATA``. ``seed`` draws the split: the same seed gives the same split on every machine. For
    MNIST only the validation part is drawn; the test part is always the canonical 10 000 images.

    Raises :class:`~jali.errors.DataError` for an unknown name, a missing file (with the way to get it) or a file whose
    content fails its checksum (with both checksums); :class:`~jali.errors.SeedError` for a seed that is none.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, _LOADERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"unknown data set {name!r}; known: {', '.join(names())}{hint}")
    folder = root if root is not None else os.environ.get("JALI_DATA") or None
    return _LOADERS[name](None if folder is None else Path(folder), seed_of(seed))


def batches(
    x: Tensor, y: Tensor, size: int, generator: torch.Generator | None = None, shuffle: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ``(x[i], y[i])`` in batches of at most ``size`` examples; every example comes exactly once.

    ``shuffle=True`` needs a ``generator``: the order must not depend on who drew from the global generator before.
    """
    if size < 1:
        raise DataError(f"batch size {size} is below 1")
    if len(x) != len(y):
        raise DataError(f"x has {len(x)} examples and y has {len(y)}; they must be equal")
    if shuffle and generator is None:
        raise DataError("shuffle=True needs a generator; pass torch.Generator().manual_seed(seed)")
    order = torch.randperm(len(x), generator=generator) if shuffle else torch.arange(len(x))
    for index in order.split(size):
        if len(index):
            yield x[index], y[index]


# --- digits -----------------------------------------------------------------------------------------------------------


@register("digits")
def _digits(root: Path | None, seed: int) -> Dataset:
    """The 1 797 handwritten digits of 8 × 8 that scikit-learn carries (UCI, Alpaydin & Kaynak 1998), one row per step.

    Split 60 : 20 : 20, stratified by class. Nothing is downloaded; ``root`` plays no part.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    x, y = (raw.images / 16.0).astype(np.float32), raw.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(y)), test_size=0.2, random_state=seed, stratify=y)
    train, validation = train_test_split(rest, test_size=0.25, random_state=seed, stratify=y[rest])
    parts = {
        "train": _split(x, y, train),
        "validation": _split(x, y, validation),
        "test": _split(x, y, test),
    }
    return Dataset("digits", **parts, classes=10, steps=8, features=8)


# --- MNIST ------------------------------------------------------------------------------------------------------------


def _mnist_source(file: str, content_md5: str, gz_md5: str) -> Source:
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
    return Source("mnist", file, content_md5, gz_md5, mirrors)


# The compressed copies in the wild differ (other compressors, other time stamps), the content does not: the content's
# checksum decides, the other one lets a download be verified before it takes its final name.
MNIST = {
    "train_x": _mnist_source(
        "train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "train_y": _mnist_source(
        "train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "test_x": _mnist_source(
        "t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"
    ),
    "test_y": _mnist_source(
        "t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"
    ),
}


@register("mnist")
def _mnist(root: Path | None, seed: int) -> Dataset:
    """MNIST (LeCun, Cortes, Burges) read by rows: 28 steps of 28 pixels; a seeded 10 % of the 60 000 validates."""
    arrays = {part: _idx(content_of(root, source)) for part, source in MNIST.items()}
    x, y = arrays["train_x"].astype(np.float32) / 255.0, arrays["train_y"].astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    held_out = round(VALIDATION_FRACTION * len(y))
    return Dataset(
        "mnist",
        train=_split(x, y, np.sort(order[held_out:])),
        validation=_split(x, y, np.sort(order[:held_out])),
        test=Split(
            torch.from_numpy(arrays["test_x"].astype(np.float32) / 255.0),
            torch.from_numpy(arrays["test_y"].astype(np.int64)),
        ),
        classes=10,
        steps=x.shape[1],
        features=x.shape[2],
    )


# --- Speech Commands --------------------------------------------------------------------------------------------------

SPEECH = Source(
    "speech_commands",
    "speech_commands_test_set_v0.02.tar.gz",
    "9a113b25c0c8df6a9df4d21511d52b50",
    "63912c15c0c9777c3194adc3d5a5fab6",
    ("https://storage.googleapis.com/download.tensorflow.org/data/", "http://download.tensorflow.org/data/"),
)


@register("speech-commands")
def _speech_commands(root: Path | None, seed: int) -> Dataset:
    """The test set of Speech Commands v0.02 (P. Warden, 2018): 4 890 clips of one second, ten words, silence, unknown.

    Log-mel energies (:mod:`jali.speech`), each band standardized by the training part. Split 64 : 16 : 20, stratified by
    class, and no speaker is in two parts. The energies are kept in the user's cache (:func:`jali.kept.kept`).
    """
    return _words(root, seed, "speech-commands", 320, 49)


@register("speech-commands-400")
def _speech_commands_400(root: Path | None, seed: int) -> Dataset:
    """The same clips and split in 400 steps, one every 38 samples (2.4 ms): long sequences."""
    return _words(root, seed, "speech-commands-400", 38, 400)


def _words(root: Path | None, seed: int, name: str, hop: int, steps: int) -> Dataset:
    from sklearn.model_selection import StratifiedGroupKFold

    x, y, speakers, words = _clips(root, name, hop, steps)
    rest, test = next(StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, speakers))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x[rest], y[rest], speakers[rest])
    train, validation = (rest[part] for part in next(folds))
    mean, deviation = x[train].mean(axis=(0, 1)), x[train].std(axis=(0, 1))
    x = (x - mean) / deviation
    return Dataset(
        name,
        train=_split(x, y, train),
        validation=_split(x, y, validation),
        test=_split(x, y, test),
        classes=len(words),
        steps=x.shape[1],
        features=x.shape[2],
    )


def _clips(root: Path | None, name: str, hop: int, steps: int) -> Clips:
    """The features of the clips, computed once: with 400 steps they take half a minute."""
    import scipy

    from jali import speech

    path = file_of(root, SPEECH)
    archive = hashlib.sha256(path.read_bytes()).hexdigest()  # what is kept was computed from this file, verified
    code = hashlib.sha256(Path(speech.__file__).read_bytes()).hexdigest()
    of = f"{archive} {SPEECH.content_md5} {code} hop {hop} steps {steps} numpy {np.__version__} scipy {scipy.__version__}"
    computed = partial(_computed, path, hop, steps)
    found = kept(cache() / SPEECH.set_name / f"{name}.features", of, computed)
    return speech.Clips(found["x"], found["y"], found["speakers"], tuple(map(str, found["words"])))


def _computed(path: Path, hop: int, steps: int) -> dict[str, np.ndarray]:
    from jali.speech import clips

    found = clips(verified(path, SPEECH), hop, steps)
    return {"x": found.x, "y": found.y, "speakers": found.speakers, "words": np.array(found.words)}


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(file: str, md5: str, *mirrors: str) -> Source:
    return Source("tabular", file, md5, md5, mirrors)


_COPIES = "https://raw.githubusercontent.com/jbrownlee/Datasets/master/"
_IRIS = _table("iris.csv", "455e8d250208699385bfe3b03b01b2c9", _COPIES)
TABLE_FILES = {
    "cancer": _table(
        "breast-cancer-wisconsin.data", "52b89051b9bd37a91a54e8570b963719",
        "https://archive.ics.uci.edu/ml/machine-learning-databases/breast-cancer-wisconsin/",
    ),
    "titanic": _table("titanic3.csv", "325096d030e34a543cc8dab5bcc4fb0f", "https://hbiostat.org/data/repo/"),
    "banknote": _table("banknote_authentication.csv", "3f64e2b50525a2f36dcd947eaf7bac8a", _COPIES),
    "iris": _IRIS,
    "iris-3": _IRIS,
    "vowel": _table("vowel.dat", "d808264e459a70a18867a4f3c99147a0"),
}  # fmt: skip


def _tabular(name: str) -> Loader:
    """The loader of one table (:mod:`jali.tabular`): split 70 : 10 : 20, stratified by class, each feature standardized by
    train and validation together, so that training on both is training on 80 % of the rows.
    """

    def loader(root: Path | None, seed: int) -> Dataset:
        from sklearn.model_selection import train_test_split

        from jali.tabular import TABLES

        x, y = TABLES[name](content_of(root, TABLE_FILES[name]).decode("utf-8", errors="replace"))
        rest, test = train_test_split(np.arange(len(y)), test_size=0.2, random_state=seed, stratify=y)
        train, validation = train_test_split(rest, test_size=0.125, random_state=seed, stratify=y[rest])
        x = ((x - x[rest].mean(axis=0)) / x[rest].std(axis=0)).astype(np.float32)[:, None, :]
        parts = {"train": _split(x, y, train), "validation": _split(x, y, validation), "test": _split(x, y, test)}
        return Dataset(name, **parts, classes=int(y.max()) + 1, steps=1, features=x.shape[2])

    return loader


for _name in TABLE_FILES:
    register(_name)(_tabular(_name))


# --- parts ------------------------------------------------------------------------------------------------------------


def _split(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> Split:
    return Split(torch.from_numpy(x[index]), torch.from_numpy(y[index]))


def _idx(content: bytes) -> np.ndarray:
    """Parse the IDX format of unsigned bytes: magic ``00 00 08 rank``, big-endian sizes, then the data."""
    rank = content[3]
    shape = np.frombuffer(content, ">i4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(int(n) for n in shape))
