"""What does a change of the code change? ``freeze`` stores what the code computes now, ``compare`` says what differs.

    python scripts/sameness.py freeze BEFORE                    # the code of this checkout; some 15 minutes on one core
    python scripts/sameness.py freeze BEFORE --root ../old      # of another checkout, e.g. of an older commit
    python scripts/sameness.py compare BEFORE AFTER             # 0: the same; 1: not; 2: a set is incomplete

A set holds, for the ten simulated experiments and six short real ones (two epochs, one seed, one thread): split,
predictions, metrics, a hash of each tensor of the best checkpoint, and one checkpoint file a model; the composed
config of every experiment; the list of test ids; with --bench the table of ``make bench``. Real data come from
TORCHCELL_MIRROR (default: shared/data beside the checkout). A set that was cut off goes on when ``freeze`` is called
again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sameness_compare import compare, print_differences
from sameness_freeze import PARTS, freeze
from sameness_set import IncompleteSet, read_rename


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = found.add_subparsers(dest="verb", required=True)
    text = "Store what the code computes. Ends with 0 if all parts are there, with 1 if one failed; the others go on."
    one = verbs.add_parser("freeze", help="store what the code computes", description=text)
    one.add_argument("out", type=Path, help="folder of the set; one that holds parts of the same code is completed")
    here = Path(__file__).resolve().parents[1]
    one.add_argument("--root", type=Path, default=here, help="checkout whose code is frozen (this one)")
    one.add_argument("--bench", action="store_true", help="also the table of make bench, which takes long")
    one.add_argument("--timeout", type=float, default=900, metavar="S", help="longest that one part may take (900 s)")
    text = "Say what differs between two sets. Ends with 0: nothing; 1: something; 2: a set is empty or lacks a part."
    two = verbs.add_parser("compare", help="say what differs between two sets", description=text)
    two.add_argument("a", type=Path, help="the set from before")
    two.add_argument("b", type=Path, help="the set from after")
    two.add_argument("--allow-new", action="store_true", help="what only B has is listed, but is no difference")
    two.add_argument("--tolerance", type=float, default=0.0, help="largest absolute difference of two numbers (0)")
    two.add_argument("--all", action="store_true", help="every line, not the first 20 of a part")
    for verb in (one, two):
        verb.add_argument(
            "--only", nargs="+", choices=[*PARTS, "bench"], metavar="PART", help=f"these alone: {', '.join(PARTS)}"
        )
        verb.add_argument(
            "--rename",
            type=Path,
            metavar="FILE",
            help="lines old=new: what metrics, config keys, systems, weights, files or tests are called in B, "
            "e.g. model.dim=model.width; freeze maps its own overrides by it",
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two verbs; the exit status."""
    given = parser().parse_args(arguments)
    try:
        rename = read_rename(given.rename)
        if given.verb == "freeze":
            only = given.only or [*PARTS, *(["bench"] if given.bench else [])]
            return freeze(given.out, given.root, only, given.timeout, rename)
        differences = compare(given.a, given.b, given.only, rename, given.tolerance)
    except IncompleteSet as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_differences(differences, given.all)
    return int(any(one.kind != "new" or not given.allow_new for one in differences))


if __name__ == "__main__":
    sys.exit(main())
