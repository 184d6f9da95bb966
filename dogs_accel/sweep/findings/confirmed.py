"""What was confirmed, as the report of a sweep shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONFIRMATION_FILE = "confirm.json"


def confirmation_view(content: Mapping[str, Any], num_complete: int) -> dict[str, Any]:
    """Lay out confirm.json for the report; num_complete: complete trials that there are now."""
    names = {each["candidate"]["name"]: each for each in content["candidates"]}
    num = len(content["seeds"])
    trained = f"{len(names)} candidate{' was' if len(names) == 1 else 's were'}"
    return {
        "lead": f"{trained} trained anew with {num} other seed{'s' * (num != 1)}, without test; accuracy on "
        f"{content['num_val']:,} images of validation.",
        "candidates": [
            {
                "name": name,
                "settings": each["candidate"]["settings"],
                "in_sweep": each["candidate"]["in_sweep"],
                "mean": each["mean"],
                "interval": (each["low"], each["high"]),
                "by_seed": ", ".join(f"{seed}: {value:.4f}" for seed, value in each["by_seed"].items()),
                "is_chosen": name == content["chosen"],
            }
            for name, each in names.items()
        ],
        "pairs": [
            {
                **pair,
                "interval": None if pair["low"] is None else (pair["low"], pair["high"]),
                "is_difference": pair["verdict"] in ("a is better", "b is better"),
                "test": mcnemar_text(pair),
                "words": pair["verdict"].replace("a is", f"{pair['a']} is").replace("b is", f"{pair['b']} is"),
            }
            for pair in content["pairs"]
        ],
        "sentences": [*content["sentences"], *_of_later(content.get("num_complete", 0), num_complete)],
    }


def mcnemar_text(pair: Mapping[str, Any]) -> str:
    """Write the p value of McNemar's test, which decides between single runs; nothing where there are several seeds."""
    p_value = pair.get("mcnemar_p_holm")
    if p_value is None:
        return ""
    return f"McNemar's test p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'} after Holm"


def _of_later(then: int, now: int) -> list[str]:
    """Say that there are more trials than those of which the best were chosen, if it was written down."""
    if not 0 < then < now:
        return []
    among = f"{then} complete trials" if then > 1 else "one complete trial"
    return [f"The trials were chosen among {among}. There are {now} now, and the later ones had no part in it."]
