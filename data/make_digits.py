"""Write data/raw/digits.csv: the 8x8 optical digits that scikit-learn ships (1,797 rows, 64 pixels 0-16, and the label).

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (CC BY 4.0).
Run from the repository root: ``python data/make_digits.py``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from sklearn.datasets import load_digits


def digits() -> pd.DataFrame:
    """Columns pixel_ROW_COLUMN for ROW, COLUMN in 0..7, and label."""
    bunch = load_digits()
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    return pd.DataFrame(bunch.data.astype(int), columns=names).assign(label=bunch.target)


if __name__ == "__main__":
    digits().to_csv(Path(__file__).parent / "raw" / "digits.csv", index=False, lineterminator="\n")
