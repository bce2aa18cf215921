"""`timesformer keys`: every key with its meaning, whichever file says it."""

from __future__ import annotations

import pytest

from timesformer.commands.keys import main, meanings
from timesformer.config.defaults import get_cfg
from timesformer.utils.errors import UserError


def test_every_key_has_a_meaning() -> None:
    found = meanings()
    assert found.keys() == dict(get_cfg().leaves()).keys()
    assert [key for key, meaning in found.items() if len(meaning) < 5] == []


def test_all_keys_and_those_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    text = capsys.readouterr().out
    assert all(f"\n{key} " in f"\n{text}" for key, _ in get_cfg().leaves())
    assert max(map(len, text.splitlines())) <= 100
    main(["cls_in_TIME"])
    (first, *meaning) = capsys.readouterr().out.splitlines()
    assert first == "TIMESFORMER.CLS_IN_TIME False"
    assert "Eq. 13" in " ".join(meaning)


def test_a_word_that_no_key_has() -> None:
    with pytest.raises(UserError, match=r"none has 'BASE_LRR' .*; did you mean SOLVER.BASE_LR\?"):
        main(["BASE_LRR"])
