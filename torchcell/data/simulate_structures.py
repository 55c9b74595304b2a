"""Small molecules for the simulated response: ring systems, and one reactive group for each target."""

from __future__ import annotations

from torchcell.data.errors import InputError

CORES: tuple[str, ...] = (
    "c1ccc({})cc1", "c1ccc2cc({})ccc2c1", "c1ccc({})nc1", "c1cnc({})nc1", "c1cnc({})cn1", "c1ccc2nc({})ccc2c1",
    "c1ccc2cnc({})cc2c1", "c1ccc2nc({})ncc2c1", "c1ccc2nc({})cnc2c1", "c1ccc2[nH]c({})cc2c1", "c1ccc2[nH]nc({})c2c1",
    "c1ccc2[nH]c({})nc2c1", "c1ccc2oc({})cc2c1", "c1ccc2sc({})cc2c1", "c1cc({})sc1", "c1cc({})oc1", "c1cc({})[nH]c1",
    "c1nc({})sc1", "c1nc({})oc1", "c1c[nH]c({})n1", "c1c[nH]nc1({})", "C1CCC({})CC1", "C1CCN({})CC1", "C1CCC({})C1",
    "C1COC({})CO1", "c1ccc(Oc2ccc({})cc2)cc1", "c1ccc(-c2ccc({})cc2)cc1", "c1ccc(Cc2ccc({})cc2)cc1",
    "c1ccc2c(c1)[nH]c1ccc({})cc12", "c1ccc2c(c1)oc1ccc({})cc12",
)  # fmt: skip
"""A ring system with the place of the reactive group; a decoration is written in front."""

GROUPS: tuple[str, ...] = (
    "CC(=O)NO", "CS(N)(=O)=O", "CC(=O)O", "CC#N", "CB(O)O", "CP(O)(O)=O", "CNC(N)=N", "CNC(=O)C=C", "COC(F)(F)F",
    "CNC(N)=O", "CC(N)=S", "CN(C)C",
)  # fmt: skip
"""What binds the target; none has a ring, so that the core alone is the scaffold."""

DECORATIONS: tuple[str, ...] = ("F", "Cl", "C", "O", "Br", "CC", "CO", "CCC")
"""In front of the core; larger ones come later."""


def simulated_smiles(core: int, group: int, decoration: int) -> str:
    """SMILES of the decorated core with its reactive group, each by its number.

    Raises:
        InputError: There are 30 cores, 12 groups and 8 decorations, so 240 drugs of 12 targets.
    """
    numbers = {"ring systems": (core, CORES), "targets": (group, GROUPS), "drugs a scaffold": (decoration, DECORATIONS)}
    for what, (number, held) in numbers.items():
        if number >= len(held):
            raise InputError(f"too many {what}: there are {len(held)}; ask for fewer drugs or targets")
    return DECORATIONS[decoration] + CORES[core].format(GROUPS[group])
