"""User-defined classes: whatever fails while their modules are imported, the error is one sentence that names them."""

from pathlib import Path

import pytest
from torch import nn

from postprior.stage1_vae.imports import import_class


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys\nsys.exit(0)", r"SystemExit: 0 \(.*own_0\.py, line 2\)"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(.*own_1\.py, line 2\)"),
        ("def Net(:", r"invalid syntax \(own_2\.py, line 1\)"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("", r"module 'own_4' has no attribute 'Net'"),
        ("raise ValueError('two\\nlines')", r"ValueError: two lines \("),
    ],
)
def test_a_module_that_does_not_run_to_its_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    code: str,
    reason: str,
) -> None:
    number = request.node.callspec.indices["code"]
    (tmp_path / f"own_{number}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"^'own_{number}:Net' cannot be imported: {reason}"):
        import_class(f"own_{number}:Net", nn.Module, "torch.nn.Module")


def test_an_interruption_is_nobody_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        import_class("interrupted:Net", nn.Module, "torch.nn.Module")
