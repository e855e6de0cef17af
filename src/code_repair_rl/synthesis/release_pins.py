"""The releases that tasks are mined from, pinned; their suites run offline on this Python."""

from __future__ import annotations

from code_repair_rl.synthesis.library import Library
from code_repair_rl.synthesis.releases import chain

_BOLTONS = Library("boltons", "", "", "BSD-3-Clause", "boltons/", ("tests",))
_SQLPARSE = Library("sqlparse", "", "", "BSD-3-Clause", "sqlparse/", ("tests",))
_CACHETOOLS = Library("cachetools", "", "", "MIT", "src/cachetools/", ("tests",), ("src",))
_MISTUNE = Library("mistune", "", "", "BSD-3-Clause", "src/mistune/", ("tests",), ("src",))
_TABULATE = Library("tabulate", "", "", "MIT", "tabulate/", ("test",))

CHAINS: tuple[tuple[Library, ...], ...] = (
    chain(
        _BOLTONS,
        (
            ("25.0.0", "e110fbdc30b7b9868cb604e3f71d4722dd8f4dcb4a5ddd06028ba8f1ab0b5ace"),
            ("26.0.0", "5566d6cfd5a1e873d8e8476496287a9f92979964611ad9a9cecb6b0ef29b1edd"),
            ("26.1.0", "5764468aba493b15995ed17f46a16789023f123ca2a62d491a9ce825c1cbe26c"),
            ("26.2.0", "d39cfd15c1a1c3bd4d705c82252fa9edb8e4f5e8cc039f8e39afac7b1b47e92c"),
        ),
    ),
    chain(
        _SQLPARSE,
        (
            ("0.5.3", "09f67787f56a0b16ecdbde1bfc7f5d9c3371ca683cfeaa8e6ff60b4807ec9272"),
            ("0.5.4", "4396a7d3cf1cd679c1be976cf3dc6e0a51d0111e87787e7a8d780e7d5a998f9e"),
            ("0.5.5", "e20d4a9b0b8585fdf63b10d30066c7c94c5d7a7ec47c889a2d83a3caa93ff28e"),
            ("0.6.0", "113c35c75365ab9cc9c7231d68c6428fb11c085fc8e9eb1ad659b7ddbf6cd2b9"),
            ("0.6.1", "ca722573f848ff2d30e40ea30f53a104b7dea7635ea9285891263eb2c58fb6e7"),
        ),
    ),
    chain(
        _CACHETOOLS,
        (
            ("7.0.0", "a9abf18ff3b86c7d05b27ead412e235e16ae045925e531fae38d5fada5ed5b08"),
            ("7.2.0", "bcac1a1b8da6909994a2957238a57b8140dab7c5c5c69a43669654fe87a33c1d"),
            ("7.3.2", "43e5db663b58c4337a9959069d93f54dd2e065fdd0438a504cd1100fbeb48beb"),
            ("8.0.1", "deb1d376d4d28c2f33f3e3058043b005e0af75c35c094bd54053e27d2906ad95"),
        ),
    ),
    chain(
        _TABULATE,
        (
            ("0.9.0", "0095b12bf5966de529c0feb1fa08671671b3368eec77d7ef7ab114be2c068b3c"),
            ("0.10.0", "e2cfde8f79420f6deeffdeda9aaec3b6bc5abce947655d17ac662b126e48a60d"),
        ),
    ),
    chain(
        _MISTUNE,
        (
            ("3.2.0", "708487c8a8cdd99c9d90eb3ed4c3ed961246ff78ac82f03418f5183ab70e398a"),
            ("3.2.1", "7c8e5501d38bac1582e067e46c8343f17d57ea1aaa735823f3aba1fd59c88a28"),
            ("3.3.0", "3074ec4c61b384abe725128e4dcbb483f5a09cc4632012505cdee655d3a113b9"),
            ("3.3.2", "e12ee4f1e74336e91aa1141e35f913b337c40bdf7c0cc49f21fb853a27e8b62f"),
            ("3.4.0", "2eaf7952af928ca8d33b779762effc1da517b62c6ad85ec8ca957e3b07b9782a"),
        ),
    ),
)
"""Releases of one library each, oldest first."""
