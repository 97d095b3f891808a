"""Small tables of measurements: from the text of a file to features and classes. Rows with a missing value are left out."""

from __future__ import annotations

import csv
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jali.errors import DataError

Rows = tuple[NDArray[np.float64], NDArray[np.int64]]  # features (N, F) as they are in the file, classes (N,) in 0..C-1
TITANIC = ("pclass", "sex", "age", "sibsp", "parch", "fare")


def cancer(text: str) -> Rows:
    """Wisconsin breast cancer: number of the case, nine grades 1..10, class 2 (benign) or 4; 683 of 699 rows are whole."""
    rows = [line for line in csv.reader(text.splitlines()) if line and "?" not in line]
    return _numbers([row[1:10] for row in rows]), _classes([row[10] for row in rows], "cancer")


def banknote(text: str) -> Rows:
    """Banknotes: four statistics of a wavelet transformed image, genuine or forged; 1 372 rows."""
    rows = [line for line in csv.reader(text.splitlines()) if line]
    return _numbers([row[:4] for row in rows]), _classes([row[4] for row in rows], "banknote")


def iris(text: str) -> Rows:
    """Fisher's irises: length and width of sepal and petal, three species; 150 rows."""
    return banknote(text)


def iris_3(text: str) -> Rows:
    """Irises without the width of the petal: three features."""
    x, y = iris(text)
    return x[:, :3], y


def titanic(text: str) -> Rows:
    """Passengers of the Titanic: class, sex (female 1), age, siblings and spouses, parents and children, fare; survived.

    1 045 of 1 309 rows have an age and a fare.
    """
    rows = [row for row in csv.DictReader(text.splitlines()) if all(row.get(name) for name in (*TITANIC, "survived"))]
    sexes = {"female": "1", "male": "0"}
    x = _numbers([[sexes.get(row[name], row[name]) for name in TITANIC] for row in rows])
    return x, _classes([row["survived"] for row in rows], "titanic")


def vowel(text: str) -> Rows:
    """Telugu vowels: the first three formants in Hz, six vowels (Pal and Majumder 1977); 871 rows, class first."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return _numbers([row[1:4] for row in rows]), _classes([row[0] for row in rows], "vowel")


TABLES: dict[str, Callable[[str], Rows]] = {
    "cancer": cancer,
    "titanic": titanic,
    "banknote": banknote,
    "iris": iris,
    "iris-3": iris_3,
    "vowel": vowel,
}


def _numbers(rows: list[list[str]]) -> NDArray[np.float64]:
    try:
        return np.array([[float(cell) for cell in row] for row in rows])
    except ValueError as error:
        raise DataError(f"a cell of the table is no number ({error}); get the file again") from error


def _classes(labels: list[str], name: str) -> NDArray[np.int64]:
    if not labels:
        raise DataError(f"{name}: the file has no whole row; get it again")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
