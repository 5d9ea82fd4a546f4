from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from doorward.config import filters
from doorward.config.document import Document, FilterTable
from doorward.config.filters import ENTRY_POINT_GROUP, read_filters
from doorward.config.lines import Lines
from doorward.config.model import FilterSetting
from doorward.config.ports import EVERY_PORT, read_protocols
from doorward.config.problems import Report
from doorward.policy.model import PortRange


def read(directory: Path, *tables: FilterTable) -> tuple[tuple[FilterSetting, ...], list[str]]:
    report = Report("p", Lines(""))
    found = read_filters(Document(filter=list(tables)), directory, read_protocols({}, report), report)
    return found, [problem.message for problem in report.problems()]


def test_a_file_is_looked_for_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "shout.py").write_text("")
    (found,), problems = read(
        tmp_path, FilterTable(name="shout", use="shout.py", protocols=["https", "tcp/25"])
    )
    assert problems == []
    assert found.use == str(tmp_path / "shout.py")
    assert found.protocols == (PortRange("tcp", 443, 443), PortRange("tcp", 25, 25))
    assert found.protocol_names == ("https", "tcp/25")


def test_without_protocols_the_filter_decides_and_any_means_every_port(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    found, _ = read(
        tmp_path, FilterTable(name="a", use="a.py"), FilterTable(name="b", use="a.py", protocols=["any"])
    )
    assert [setting.protocols for setting in found] == [None, EVERY_PORT]


@pytest.mark.parametrize("use", ["missing.py", "./missing", "sub/", "a\0.py"])
def test_a_file_that_is_not_there_is_reported(tmp_path: Path, use: str) -> None:
    (tmp_path / "sub").mkdir()
    assert read(tmp_path, FilterTable(name="a", use=use))[1][0].startswith("there is no file")


def test_an_installed_filter_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EntryPoints([EntryPoint("greeter", "somewhere:Greeter", ENTRY_POINT_GROUP)])
    monkeypatch.setattr(filters, "entry_points", lambda group: installed.select(group=group))
    assert read(tmp_path, FilterTable(name="a", use="greeter"))[1] == []
    assert read(tmp_path, FilterTable(name="a", use="greater"))[1] == [
        'unknown filter "greater"; did you mean "greeter"?'
    ]
