"""Numbers in the README are those of a recorded run, to the last digit shown."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
NAMES = {
    "bpb_recipes": "bits per byte of held-out recipes",
    "bpb_recipes_trigram": "... by a Kneser-Ney trigram",
    "bpb_recipes_5gram": "... by a Kneser-Ney 5-gram",
    "bpb_recipes_xz": "... by xz",
    "bpb_wiki": "bits per byte of held-out articles",
    "bpb_wiki_5gram": "... by a Kneser-Ney 5-gram",
    "calculator_accuracy": "sums answered rightly, numbers never seen",
    "calculator_accuracy_new_wording": "... asked in words never seen",
    "find_accuracy": "the right dish looked up, dishes and words never seen",
    "ingredient_f1": "agreement of the ingredients with the true recipe (F1)",
    "follow_up_accuracy": "follow-up questions all right, words never seen",
    "talk_accuracy": "small talk, safety and limits, words never seen",
    "choice_accuracy": "multiple choice",
    "stop_rate": "answers that end by themselves",
}


def rendered(record: dict) -> str:
    """The table that belongs to a record."""
    stages = ("pretrain", "midtrain", "sft", "rl")
    found = {(figure["stage"], figure["name"]): figure for figure in record["figures"]}
    lines = ["| held-out figure | " + " | ".join(stages) + " | n |", "|---|" + "---|" * (len(stages) + 1)]
    for name, title in NAMES.items():
        if not any(of == name for _, of in found):
            continue
        cells = [shown(found.get((stage, name))) for stage in stages]
        n = max(figure["n"] for (_, of), figure in found.items() if of == name)
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {n} |")
    seconds, peak = 60 * record["minutes"], record["peak_memory_gb"]
    cost = f"{seconds:.0f} seconds of training, and {peak:.1f} GB of memory at the most"
    lines += ["", f"From nothing but the downloaded text: {cost}."]
    return "\n".join(lines) + "\n"


def shown(figure: dict | None) -> str:
    if figure is None:
        return ""
    return f"{100 * figure['value']:.0f} %" if figure["unit"] == "share" else f"{figure['value']:.3f}"


def test_tables_are_those_of_their_records() -> None:
    found = TABLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found
    for path, table in found:
        record = json.loads((ROOT / path).read_text(encoding="utf-8"))
        assert table == rendered(record), f"write this into README.md:\n{rendered(record)}"
        assert record["commit"]
        assert not record["commit"].endswith("+"), "recorded from files that no commit holds"
