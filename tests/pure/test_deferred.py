"""Modules that are left out of another one's import until they are used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from streampiped.runtime.deferred import import_lean, left_out

HEAVY = "heavy_and_seldom_used"
"""A package with a function, a class and a part."""
USER = "library_that_imports_it"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory to import from, with HEAVY in it."""
    (tmp_path / HEAVY).mkdir()
    (tmp_path / HEAVY / "__init__.py").write_text(
        dedent("""
            __version__ = "1.5"
            def double(x, *, plus=0): return 2 * x + plus
            class Frame:
                kind = "frame"
        """)
    )
    (tmp_path / HEAVY / "part.py").write_text("whole = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in (HEAVY, USER)]:
        del sys.modules[name]


def library(packages: Path, text: str, *, twice: bool = False) -> ModuleType:
    """USER with this text, imported without HEAVY; `twice`: and again, if it cannot be."""
    (packages / f"{USER}.py").write_text(dedent(text))
    if twice:
        import_lean(USER, [HEAVY, "no_such_module_anywhere"])
    else:
        with left_out([HEAVY, "no_such_module_anywhere"]):
            import_module(USER)
    return sys.modules[USER]


@pytest.mark.parametrize(
    ("text", "use"),
    [
        (f"from {HEAVY} import double", "library.double(4, plus=1) == 9"),
        (f"import {HEAVY} as h", "library.h.double(4) == 8"),
        (f"from {HEAVY} import Frame", "library.Frame.kind == 'frame'"),
        (f"from {HEAVY} import Frame", "not isinstance(3, library.Frame)"),
        (f"from {HEAVY} import Frame", "isinstance(library.Frame(), library.Frame)"),
        (f"import {HEAVY} as h", "library.h.__version__ == '1.5'"),
    ],
)
def test_it_comes_when_it_is_used(packages: Path, text: str, use: str) -> None:
    """The import leaves it out; a call, an attribute and a comparison get what they would have got."""
    found = library(packages, text)
    assert HEAVY not in sys.modules
    assert eval(use, {"library": found})
    assert sys.modules[HEAVY].double(1) == 2


@pytest.mark.parametrize(
    "text",
    [
        f"from {HEAVY} import Frame\nclass Own(Frame): pass\nassert Own.kind == 'frame'",
        f"import {HEAVY} as h\nassert h.__version__ == '1.5'",
        f"from {HEAVY} import double\nassert double(2) == 4",
    ],
)
def test_what_cannot_wait_comes_at_once(packages: Path, text: str) -> None:
    """A library that uses it while it is imported finds it."""
    library(packages, text)
    assert sys.modules[HEAVY].double(1) == 2


@pytest.mark.parametrize(
    "text",
    [
        f"import {HEAVY}.part\nassert {HEAVY}.part.whole == 3",
        f"from {HEAVY}.part import whole\nassert whole == 3",
    ],
)
def test_a_part_comes_with_the_whole(packages: Path, text: str) -> None:
    """A library that imports a part of it is imported as ever."""
    library(packages, text, twice=True)
    assert sys.modules[HEAVY].double(1) == 2


def test_everybody_else_gets_the_module_itself(packages: Path) -> None:
    """Behind the block an import is an import, also when the block was left by an exception."""
    with pytest.raises(KeyError), left_out([HEAVY]):
        raise KeyError
    module = __import__(HEAVY)
    assert module.__file__ == str(packages / HEAVY / "__init__.py")


def test_what_is_not_installed_stays_so(packages: Path) -> None:
    """A library that does without finds out as ever."""
    with left_out(["no_such_module_anywhere"]), pytest.raises(ModuleNotFoundError):
        import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401


def test_a_module_that_cannot_be_imported_says_so(packages: Path) -> None:
    """Its own error, not one about what was left out."""
    with pytest.raises(ZeroDivisionError):
        library(packages, f"import {HEAVY}\n1 / 0", twice=True)


def in_launcher(code: str) -> None:
    """Run in a process that has preloaded what the default pipeline needs, as the launcher does."""
    start = (
        "import sys, streampiped.launcher as l; from streampiped.runtime.preload import guess; l.preload(guess([]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + dedent(code)], capture_output=True, text=True, timeout=120.0, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_launcher_has_neither_pandas_nor_scipy_stats() -> None:
    """What scikit-learn imports of others, and no stage of ours uses, is not in the memory that all share."""
    in_launcher("""
        left = [name for name in sys.modules if name.startswith(("pandas", "pyarrow", "scipy.stats"))]
        assert not left, left
        assert "sklearn.linear_model" in sys.modules
    """)


def test_scikit_learn_uses_scipy_stats_where_it_needs_it() -> None:
    """Estimators that are built on it give what they give in a process that imported it."""
    in_launcher("""
        import numpy as np
        from sklearn.metrics import label_ranking_loss
        from sklearn.preprocessing import PowerTransformer, QuantileTransformer
        from sklearn.ensemble import GradientBoostingClassifier
        x = np.linspace(1.0, 9.0, 60).reshape(-1, 2) ** 2
        assert abs(PowerTransformer(method="box-cox").fit_transform(x).std() - 1.0) < 1e-9
        assert QuantileTransformer(n_quantiles=5, output_distribution="normal").fit_transform(x).max() > 5.0
        GradientBoostingClassifier(n_estimators=2).fit(x, np.arange(30) % 3).predict_proba(x)
        assert label_ranking_loss([[1, 0, 0]], [[0.75, 0.5, 1.0]]) == 0.5
        import scipy, scipy.stats
        assert scipy.stats is sys.modules["scipy.stats"] and scipy.stats.norm.cdf(0.0) == 0.5
    """)


def test_a_user_brings_a_data_frame() -> None:
    """Who imports pandas behind the preload gets it, and scikit-learn takes and gives its frames."""
    pytest.importorskip("pandas")
    in_launcher("""
        import numpy as np
        import pandas
        from sklearn.compose import ColumnTransformer
        from sklearn.linear_model import SGDRegressor
        from sklearn.preprocessing import StandardScaler
        from sklearn.impute import SimpleImputer
        frame = pandas.DataFrame({"a": [1.0, 2.0, 3.0, None], "b": [0.0, 1.0, 0.0, 1.0]})
        filled = SimpleImputer().set_output(transform="pandas").fit_transform(frame)
        assert type(filled) is pandas.DataFrame and filled["a"].tolist() == [1.0, 2.0, 3.0, 2.0], filled
        SGDRegressor().fit(filled, [1.0, 2.0, 3.0, 4.0]).predict(filled)
        scaled = ColumnTransformer([("s", StandardScaler(), ["a"])], remainder="passthrough").fit_transform(filled)
        assert scaled.shape == (4, 2)
        import sklearn.utils.fixes as fixes
        if getattr(fixes, "pd", None) is not None:
            assert fixes.pd.DataFrame.__name__ == "DataFrame" and fixes.pd.__version__ == pandas.__version__
    """)
