"""Which method works on which family of networks: as the docs say."""

from __future__ import annotations

import pytest
from benchmarks import families

from lightning_cnnvis.methods import method_names


@pytest.mark.slow
@pytest.mark.parametrize("name", families.FAMILIES)
def test_each_method_works_or_is_refused_as_the_docs_say(name):
    found = families.outcomes(families.FAMILIES[name])
    assert families.row(name, found) in families.PAGE.read_text(encoding="utf-8").splitlines()
    for why in filter(None, found.values()):
        assert why[0].isupper()
        assert why.count(" ") > 5  # a sentence


def test_the_table_has_every_family_and_every_method():
    lines = families.PAGE.read_text(encoding="utf-8").splitlines()
    for name in families.FAMILIES:
        assert sum(line.startswith(f"| {name} |") for line in lines) == 1
    assert len(families.FAMILIES) >= 20
    assert {method for method, _ in families.COLUMNS.values()} <= set(method_names())
