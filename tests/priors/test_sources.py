"""Whom the bundled weights were trained on: every table that a card names is there, with an author for each image."""

import csv
import json
import re
from pathlib import Path

import pytest

import genprior
from genprior.priors.store import BUNDLED

USERS = {"photographs": "spectra", "ddpm-photo": "photo"}  # in "used by"; of other priors of photographs, "all"
CARDS = [*BUNDLED.glob("*/card.json"), Path(genprior.__file__).parent / "blind" / "photographs" / "card.json"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_the_table_that_a_card_names_lists_as_many_images(card):
    data = json.loads(card.read_text())["data"]
    named = re.search(r"(\d+) photographs .* see (\w+\.csv)", data)
    if named is None:  # digits
        assert "photographs" not in data, data
        return
    count, table = named.groups()
    with (BUNDLED / table).open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    name = card.parent.name
    user = "flower priors" if name.endswith("-flowers") else USERS.get(name, "all")
    used = [row for row in rows if user in row["used by"]]
    assert len(used) == int(count)
    assert all(row["licence"] and row["author"] for row in rows)
