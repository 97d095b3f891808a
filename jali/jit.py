"""Numba's compiler with its cache on disk, and without that where it cannot be written or read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba

_log = logging.getLogger("jali")
_TOLD: set[type] = set()
Made = TypeVar("Made")


def njit(cache: bool, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit``, whose ``cache=True`` is given up, with a warning, where no folder for it can be written."""

    def compiled(function: Callable[..., Any]) -> Any:
        return with_cache(lambda use: numba.njit(cache=use, **options)(function), cache)

    return compiled


def with_cache(made: Callable[[bool], Made], cache: bool = True) -> Made:
    """``made(cache)``; ``made(False)`` where numba's cache on disk cannot be written or read."""
    try:
        return made(cache)
    except Exception as error:  # what is not the cache's fault comes again without it
        found = made(False)
        if type(error) not in _TOLD:  # every function has a message of its own
            _TOLD.add(type(error))
            _log.warning(
                "functions are compiled anew in every process, since numba's cache on disk cannot be used (%s); set "
                "NUMBA_CACHE_DIR to a new folder that can be written",
                f"{type(error).__name__}: {error}".splitlines()[0],
            )
        return found
