"""Data sets: splits are partitions fixed by the seed; files are verified; failures say what to do and leave nothing."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jali import data
from jali.errors import DataError

# --- digits -----------------------------------------------------------------------------------------------------------


def rows(x: torch.Tensor) -> list[bytes]:
    return sorted(row.numpy().tobytes() for row in x)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_digits_split_is_a_stratified_partition_fixed_by_the_seed(seed: int) -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    first, second = data.load("digits", seed=seed), data.load("digits", seed=seed)
    parts = [first.train, first.validation, first.test]
    assert rows(torch.cat([part.x for part in parts])) == rows(torch.from_numpy((raw.images / 16).astype(np.float32)))
    assert torch.equal(torch.bincount(torch.cat([part.y for part in parts])), torch.tensor(np.bincount(raw.target)))
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        expected = np.bincount(raw.target) * fraction
        assert np.abs(torch.bincount(part.y, minlength=10).numpy() - expected).max() <= 1
    for one, other in zip(parts, [second.train, second.validation, second.test], strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


def test_digits_shape_range_and_seeds() -> None:
    set_ = data.load("digits")
    assert (set_.name, set_.classes, set_.steps, set_.features) == ("digits", 10, 8, 8)
    assert set_.train.x.shape[1:] == (8, 8)
    assert set_.train.x.dtype == torch.float32
    assert set_.train.y.dtype == torch.int64
    assert (set_.train.x.min(), set_.train.x.max()) == (0.0, 1.0)
    assert not torch.equal(set_.test.y, data.load("digits", seed=1).test.y)


def test_unknown_name_suggests_a_near_one() -> None:
    with pytest.raises(DataError, match=r"'minst'; known: .*did you mean 'mnist'"):
        data.load("minst")


# --- batches ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(n=st.integers(0, 40), size=st.integers(1, 50), shuffle=st.booleans(), seed=st.integers(0, 9))
def test_batches_visit_every_example_once(n: int, size: int, shuffle: bool, seed: int) -> None:
    x, y = torch.arange(n).float(), torch.arange(n)

    def run() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(data.batches(x, y, size, torch.Generator().manual_seed(seed), shuffle))

    got = run()
    order = [int(i) for _, part in got for i in part]
    assert sorted(order) == list(range(n))
    assert all(torch.equal(part_x.long(), part_y) for part_x, part_y in got)
    assert all(len(part) == size for part, _ in got[:-1])
    assert all(1 <= len(part) <= size for part, _ in got)
    assert [int(i) for _, part in run() for i in part] == order
    if not shuffle:
        assert order == list(range(n))


def test_batches_shuffle_for_real_and_refuse_what_is_not_reproducible() -> None:
    x = torch.arange(100)
    shuffled = torch.cat([b for b, _ in data.batches(x, x, 7, torch.Generator().manual_seed(0), shuffle=True)])
    assert not torch.equal(shuffled, x)
    with pytest.raises(DataError, match="needs a generator"):
        next(data.batches(x, x, 7, shuffle=True))
    with pytest.raises(DataError, match="batch size 0"):
        next(data.batches(x, x, 0))
    with pytest.raises(DataError, match="100 examples and y has 99"):
        next(data.batches(x, x[1:], 7))


# --- MNIST, with small files of the same format -----------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with a tiny MNIST, and the table of checksums changed to match; no network, no cache of the user."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_x": rng.integers(0, 256, (50, 28, 28), dtype=np.uint8),
        "train_y": rng.integers(0, 10, 50, dtype=np.uint8),
        "test_x": rng.integers(0, 256, (7, 28, 28), dtype=np.uint8),
        "test_y": rng.integers(0, 10, 7, dtype=np.uint8),
    }
    folder = tmp_path / "sets" / "mnist"
    folder.mkdir(parents=True)
    for part, array in arrays.items():
        content = idx(array)
        packed = gzip.compress(content, mtime=0)
        source = data.MNIST[part]
        (folder / source.file).write_bytes(packed)
        changed = source._replace(content_md5=md5(content), gz_md5=md5(packed), mirrors=("http://127.0.0.1:9/",))
        monkeypatch.setitem(data.MNIST, part, changed)
    monkeypatch.delenv("JALI_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    return folder.parent, arrays


def test_mnist_reads_the_bytes(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, arrays = small
    set_ = data.load("mnist", root)
    assert (set_.classes, set_.steps, set_.features) == (10, 28, 28)
    assert (len(set_.train.y), len(set_.validation.y), len(set_.test.y)) == (45, 5, 7)
    assert torch.equal((set_.test.x * 255).round().to(torch.uint8), torch.from_numpy(arrays["test_x"]))
    assert torch.equal(set_.test.y, torch.from_numpy(arrays["test_y"]).long())
    both = torch.cat([set_.train.x, set_.validation.x])
    assert rows(both) == rows(torch.from_numpy(arrays["train_x"].astype(np.float32) / 255))
    again, other = data.load("mnist", root), data.load("mnist", root, seed=1)
    assert torch.equal(set_.validation.x, again.validation.x)
    assert not torch.equal(set_.validation.x, other.validation.x)
    assert torch.equal(set_.test.x, other.test.x)


def test_jali_data_is_used_and_never_mixed_with_a_download(
    small: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    root, _ = small
    server.serve(root / "mnist")
    monkeypatch.setenv("JALI_DATA", str(root))
    assert len(data.load("mnist").test.y) == 7
    file = root / "mnist" / "t10k-labels-idx1-ubyte.gz"
    file.unlink()
    with pytest.raises(DataError, match=r"no file .*t10k-labels-idx1-ubyte\.gz.*JALI_DATA.*download http.*mnist"):
        data.load("mnist")
    assert server.requests == []


def test_a_changed_byte_is_named_by_both_checksums(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, arrays = small
    wrong = arrays["train_x"].copy()
    wrong[3, 4, 5] ^= 1
    (root / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(wrong)))
    with pytest.raises(DataError) as caught:
        data.load("mnist", root)
    assert md5(idx(wrong)) in str(caught.value)
    assert md5(idx(arrays["train_x"])) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_truncated_file_is_refused(small: tuple[Path, dict[str, np.ndarray]], keep: int) -> None:
    root, _ = small
    file = root / "mnist" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"train-labels.*(truncated|MD5)"):
        data.load("mnist", root)


# --- downloads, from a server of our own ------------------------------------------------------------------------------


class Server:
    """An HTTP server on this machine; ``spoil`` changes what it sends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.requests: list[str] = []
        self.spoil = lambda content: content

    def serve(self, folder: Path) -> None:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                content = (folder / Path(self.path).name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(outer.spoil(content))

            def log_message(self, *args: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=functools.partial(self.httpd.serve_forever, poll_interval=0.01), daemon=True).start()
        mirrors = ("http://127.0.0.1:9/", f"http://127.0.0.1:{self.httpd.server_port}/")  # the first one is down
        for part, source in data.MNIST.items():
            self.monkeypatch.setitem(data.MNIST, part, source._replace(mirrors=mirrors))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server(monkeypatch)
    yield server
    if hasattr(server, "httpd"):
        server.httpd.shutdown()
        server.httpd.server_close()


def test_download_once_from_the_first_mirror_that_answers(
    small: tuple[Path, dict[str, np.ndarray]], server: Server
) -> None:
    root, arrays = small
    server.serve(root / "mnist")
    for _ in range(2):
        assert torch.equal(data.load("mnist").test.y, torch.from_numpy(arrays["test_y"]).long())
    assert len(server.requests) == 4


@pytest.mark.parametrize("spoil", [lambda c: c[:-1] + b"x", lambda c: c[: len(c) // 2]], ids=["changed", "cut short"])
def test_a_bad_download_is_refused_and_leaves_nothing(
    small: tuple[Path, dict[str, np.ndarray]], server: Server, tmp_path: Path, spoil: object
) -> None:
    root, _ = small
    server.serve(root / "mnist")
    server.spoil = spoil
    with pytest.raises(DataError, match="could not be downloaded"):
        data.load("mnist")
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []
    server.spoil = lambda content: content
    assert len(data.load("mnist").test.y) == 7


def test_no_network_says_how_to_get_the_set(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    with pytest.raises(DataError, match=r"could not be downloaded.*ConnectionError.*set JALI_DATA=DIR"):
        data.load("mnist")


@pytest.mark.data
@pytest.mark.skipif(
    not (Path(os.environ.get("JALI_DATA") or "/nonexistent") / "mnist").is_dir(), reason="JALI_DATA has no mnist"
)
def test_the_canonical_mnist() -> None:
    set_ = data.load("mnist")
    assert set_.train.x.shape == (54_000, 28, 28)
    assert set_.validation.x.shape == (6_000, 28, 28)
    assert torch.bincount(set_.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert set_.test.y[:5].tolist() == [7, 2, 1, 0, 4]
